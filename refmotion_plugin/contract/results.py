"""The one reader of a job's results: protocol outputs, viewers, reports and notebooks ask here and open no file themselves."""
import json
from collections import Counter, OrderedDict, namedtuple
from pathlib import Path

import numpy as np

from .errors import InputError, MovieError
from .layout import JobLayout, located, read_json, read_object
from .motion_summary import EARLY_DOSE_E_PER_A2, STATISTICS_MOVIES, MovieMotion, motion_statistics, movie_motion, spread
from .particle_pairs import particle_pairs
from .reading import read_text
from .spec import JobSpec
from .star import read_corrected_micrographs, read_movie_metadata, read_table
from .store import load_fcc, load_hyperparameters, load_thumbnail, load_trajectories, load_weights
from .verdict import load_verdict

MovieState = namedtuple("MovieState", "key micrograph n_particles align polish reason")
"""State of one movie: ``align`` and ``polish`` are todo, done or failed; ``reason`` is a sentence for failed ones."""

MovieRow = namedtuple("MovieRow", "key micrograph n_particles state reason fit strength path_length_angstrom early_angstrom local_rms_angstrom "
                                  "sd_angstrom")
"""One movie for lists and plots: ``state`` to do, aligned, polished or failed; ``reason`` of a failure; ``fit`` how the fit ended; ``strength`` of
its motion in units of the job's prior (None if it has none of its own); the numbers of a MovieMotion, None before the alignment."""

SearchFinding = namedtuple("SearchFinding", "family text worth_it gain gain_error gain_error_over_movies movies_with_gain particles "
                                            "movies margins evidence errors activity_at_last_angstrom trials")
"""What the search for hyperparameters found. ``worth_it``: whether local motion helps, None where nothing that was held out can tell;
``gain``: log-likelihood of held-out data won over rigid motion, ``gain_error`` its standard error; ``gain_error_over_movies`` is None for one movie; ``margins`` {family: (how much worse than the chosen, error)};
``evidence`` {family: how much less probable than the best, natural logarithm}; ``errors`` {parameter: standard error of its natural logarithm};
``trials``: one dict per point tried, in order (kind rigid / ray / default / most probable, family, gain, gain_error, activity_angstrom, hyperparameters,
and of rays iteration, ray, strength, theta_degree, correlation_distance_angstrom). ``text`` is the finding as a sentence."""


def read_status(path):
    """Records of a file of JSON lines in order; a last line that was cut off by a crash is left out."""
    try:
        lines = read_text(path, errors="replace").split("\n")
    except OSError:
        return []
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        events += [event] if isinstance(event, dict) else []
    return events


def states_of_movies(events, stages, fields):
    """{movie key: its row of the last list of movies, brought up to date by later events}, in the list's order.

    Parameters: ``events`` of a status file, ``stages`` whose events count, ``fields`` {name of a row: type} that each row has. What is
    damaged is left out.
    """
    states = OrderedDict()
    for event in events:
        if event.get("event") == "movies" and isinstance(event.get("movies"), list):
            rows = [row for row in event["movies"] if isinstance(row, dict) and all(isinstance(row.get(n), kind) for n, kind in fields.items())]
            states = OrderedDict((row["key"], dict({name: row[name] for name in fields}, reason="")) for row in rows)
        elif event.get("event") in stages and isinstance(event.get("state"), str) and isinstance(event.get("movie"), str):
            if event["movie"] in states:
                states[event["movie"]].update({event["event"]: event["state"], "reason": str(event.get("reason", ""))})
    return states


class JobResults:
    """What the job in ``folder`` has reached so far. Everything is read when asked for, so a running job may be looked at."""

    def __init__(self, folder):
        self.layout = JobLayout(folder)
        if not self.layout.job.exists():
            raise InputError("%s holds no job (job.json is missing): give the folder of a 'refmotion run'" % folder)

    @property
    def spec(self):
        """Parameters of the job, a JobSpec."""
        return JobSpec.read(self.layout.job)

    def movies(self):
        """States of all movies that have particles, in the job's order: list of :class:`MovieState`."""
        fields = {"key": str, "micrograph": str, "n_particles": int, "align": str, "polish": str}
        return [MovieState(**state) for state in states_of_movies(read_status(self.layout.status), ("align", "polish"), fields).values()]

    def failed(self):
        """The movies that failed, with reasons."""
        return [m for m in self.movies() if "failed" in (m.align, m.polish)]

    def aligned_keys(self):
        """Keys of the movies with trajectories, in the job's order."""
        return [m.key for m in self.movies() if m.align == "done" and self.layout.trajectories(m.key).exists()]

    def trajectories(self, key):
        """Trajectories of one movie."""
        return load_trajectories(self.layout.trajectories(key))

    def fcc(self, key):
        """FccTable of one movie."""
        return load_fcc(self.layout.fcc(key))

    def fcc_total(self):
        """FccTable summed over the job's movies of the kind (frames, doses, pixel size) with most data, or None before the weights were fitted."""
        return load_fcc(self.layout.fcc_total) if self.layout.fcc_total.exists() else None

    def weights(self):
        """DoseWeights, or None before they were fitted."""
        return load_weights(self.layout.weights) if self.layout.weights.exists() else None

    def hyperparameters(self):
        """Hyperparameters, or None before they were set."""
        return load_hyperparameters(self.layout.hyperparameters) if self.layout.hyperparameters.exists() else None

    def search(self):
        """:class:`SearchFinding` of the search for hyperparameters, or None if there was none."""
        found = read_json(self.layout.search)
        if not isinstance(found, dict) or not self.spec.wants_search:
            return None
        try:
            margins = OrderedDict((name, (float(margin), float(error))) for name, (margin, error) in found["margins"].items())
            return SearchFinding(found["family"], found["text"], found["worth_it"], float(found["gain_log_likelihood"]), float(found["gain_error"]),
                                 found["gain_error_over_movies"], found["movies_with_gain"], found["particles"], found["movies"], margins,
                                 dict(found.get("evidence", {})), dict(found.get("errors", {})), found["activity_at_last_angstrom"], read_status(self.layout.search_journal))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("%s is damaged (%r): delete it and give the same command again" % (self.layout.search, error)) from None

    def verdict(self):
        """:class:`~.verdict.Verdict` of the job, or None before one is reached (anew, where movies are aligned otherwise) and for a job that ends before that."""
        reached = self.layout.verdict.exists() and self.spec.output.stop_after != "hyperparameters"
        return load_verdict(self.layout.verdict) if reached else None

    def particle_stars(self):
        """Paths of the polished particles' STAR files, one per reference, those that exist."""
        count = len(self.spec.references)
        paths = [self.layout.particles(i, count) for i in range(count)]
        return [p for p in paths if p.exists()]

    def stacks(self, reference=0):
        """Paths of the polished image stacks of one reference in the job's order."""
        count = len(self.spec.references)
        paths = [self.layout.polished(m.key, reference, count) for m in self.movies() if m.polish == "done"]
        return [p for p in paths if p.exists()]

    def particle_rows(self, reference=0):
        """Tables of the input and of the polished particles (StarTable, or None before they are written)."""
        after = self.layout.particles(reference, len(self.spec.references))
        return (read_table(self.spec.references[reference].particles, "particles"),
                read_table(after, "particles") if after.exists() else None)

    def polished_images(self, reference=0):
        """For each row of the polished STAR file its stack (as written there) and 0-based image number."""
        after = self.particle_rows(reference)[1]
        if after is None:
            return []
        names = [name.partition("@") for name in after.text("rlnImageName").tolist()]
        odd = next((i for i, (number, _, stack) in enumerate(names) if not (number.isdecimal() and int(number) and stack)), None)
        if odd is not None:
            raise InputError("%s: rlnImageName of row %d is %r where number@stack was expected: give the same command again"
                             % (after.source, odd + 1, "".join(names[odd])))
        return [(stack, int(number) - 1) for number, _, stack in names]

    def left_out(self):
        """Table of the particles that did not leave, with reasons (StarTable, or None if all left)."""
        return read_table(self.layout.left_out, "particles") if self.layout.left_out.exists() else None

    def left_out_reasons(self):
        """{reason: number of particles left out for it}, most frequent first."""
        table = self.left_out()
        return OrderedDict(Counter(table.columns["refmotionReason"]).most_common() if table is not None else [])

    def motion_statistics(self, early_dose_e_per_A2=EARLY_DOSE_E_PER_A2, keys=None):
        """:class:`MotionStatistics` of all aligned movies (or of ``keys``), or None if there is none."""
        tables = [self.trajectories(key) for key in (self.aligned_keys() if keys is None else keys)]
        return motion_statistics(tables, early_dose_e_per_A2) if tables else None

    def movie_rows(self):
        """One :class:`MovieRow` per movie, in the job's order; numbers that the alignment left are taken, else they are computed."""
        return [self._movie_row(movie) for movie in self.movies()]

    def _movie_row(self, movie):
        state = "failed" if "failed" in (movie.align, movie.polish) else "polished" if movie.polish == "done" else "aligned" if movie.align == "done" else "to do"
        notes = read_object(self.layout.done(movie.key, "align")) if movie.align == "done" else {}
        motion = notes.get("motion") if isinstance(notes.get("motion"), dict) else None
        if motion is None and movie.align == "done" and self.layout.trajectories(movie.key).exists():
            motion = movie_motion(self.trajectories(movie.key))._asdict()
        values = dict.fromkeys(MovieMotion._fields) if motion is None else motion
        return MovieRow(movie.key, movie.micrograph, movie.n_particles, state, movie.reason, notes.get("stop_reason", ""), notes.get("strength"),
                        **{name: values.get(name) for name in MovieMotion._fields})

    def micrograph_file(self, micrograph):
        """Path of the image of a micrograph by its name in the movies' list, or None if there is no such file (it may never have been made)."""
        path = Path(located(micrograph, self.spec.inputs.movies))
        return path if path.exists() else None

    def thumbnail(self, key):
        """Small average of one movie as (image (h, w) uint8, pixel size in A), or None if the engine left none."""
        return load_thumbnail(self.layout.thumbnail(key))

    def particle_pairs(self, reference=0, count=8):
        """Images of the same particles before and after, see :func:`~.particle_pairs.particle_pairs`."""
        return particle_pairs(self, reference, count)

    def voltage_kilovolt(self):
        """Voltage of the first movie that can be read; 300 if none can."""
        try:
            first = read_corrected_micrographs(self.spec.inputs.movies)[0][0]
            return read_movie_metadata(first.metadata_star, first.name).voltage_kilovolt
        except (InputError, MovieError, OSError, IndexError):
            return 300.0

    def progress(self):
        """What the running job does now: stage, done, total, remaining_seconds; None if it never said."""
        return read_json(self.layout.progress)

    def summary(self):
        """Numbers for a page or a log: a dict of what exists now, missing things are absent."""
        movies, left_out = self.movies(), self.left_out()
        numbers = {"movies": len(movies), "movies_aligned": sum(m.align == "done" for m in movies),
                   "movies_polished": sum(m.polish == "done" for m in movies), "movies_failed": len(self.failed()),
                   "particles_in_movies": sum(m.n_particles for m in movies)}
        found = self.search()
        if found is not None:
            numbers["hyperparameter_search"] = found.text
        verdict = self.verdict()
        if verdict is not None:
            numbers["verdict"] = verdict.text
        stars = self.particle_stars()
        if stars and numbers["movies_polished"]:        # else they are of other settings than the job's present ones
            numbers["particles_written"] = sum(len(read_table(p, "particles")) for p in stars)
            numbers["particles_left_out"] = len(left_out) if left_out is not None else 0
        motion = self.motion_statistics(keys=spread(self.aligned_keys(), STATISTICS_MOVIES))
        if motion is not None:
            numbers["mean_path_length_angstrom"] = float(np.mean(motion.path_length_angstrom))
            numbers["mean_early_motion_angstrom"] = float(np.mean(motion.early_angstrom))
            numbers["mean_local_rms_angstrom"] = float(np.mean(motion.local_rms_angstrom))
        return numbers
