"""All figures that the results of a job allow: the report, the viewers and exports draw from this one list."""
from collections import namedtuple

from ..contract.errors import InputError
from ..contract.motion_summary import STATISTICS_MOVIES, spread
from .fcc import fcc_figure
from .images import as_background, read_background, read_particles
from .motion import motion_figure
from .movies import movies_figure, states_figure
from .particles import gallery_figure, spectra_figure
from .prior import hyperparameters_figure
from .reconstruction import reconstruction_figure
from .search import search_figure
from .trajectories import trajectories_figure
from .verdict import verdict_figure
from .weights import weights_figure

SHOWN_MOVIES, SHOWN_PARTICLES, SPECTRA_PARTICLES = 2, 12, 64

Entry = namedtuple("Entry", "name title text draw")
"""``name`` of the file, ``title`` and ``text`` for a page, ``draw()`` makes the figure; nothing is read before that."""


def job_figures(results):
    """Entries of everything there is to show, the most important first; ``results`` is a JobResults."""
    finders = (("verdict", _verdict), ("fsc", _reconstructions), ("search", _search), ("fcc", _correlations), ("weights", _weights), ("motion", _motion), ("movies", _states),
               ("trajectories", _movies), ("particles", _particles), ("prior", _prior))
    return [entry for name, find in finders for entry in _found(name, find, results)]


def _found(name, find, results):
    """Entries of one kind; a file that cannot be read is said in the figure's place."""
    try:
        return find(results)
    except InputError as error:
        fault = error

    def fail():
        raise fault
    return [Entry(name, name, "", fail)]


def _verdict(results):
    verdict = results.verdict()
    return [] if verdict is None else [Entry("verdict", "Verdict", "What the correction brings, judged on data that had no part in it; dose weights that were given are not judged.", lambda: verdict_figure(verdict))]


def _reconstructions(results):
    verdict = results.verdict()
    return [] if verdict is None else [Entry(
        "fsc" + _number(found.reference), "Reconstruction before and after" + (" of reference %d" % (found.reference + 1) if found.reference else ""),
        "Half-maps of the same particles in the same poses and half-sets, within the reference's mask. The error is that of the difference: both hold the same noise.",
        lambda found=found: reconstruction_figure(found)) for found in verdict.reconstructions]


def _search(results):
    found = results.search()
    return [] if found is None else [Entry(
        "search", "Search for hyperparameters",
        "Above: how much better held-out data are explained than by rigid motion, along rays of growing prior strength, with standard errors, and how "
        "much still moves; directions near 0° stiffen the velocity, near 90° the acceleration. Below: each family of priors at its best, and the trials "
        "in order.", lambda: search_figure(found))]


def _correlations(results):
    table = results.fcc_total()
    return [] if table is None else [Entry(
        "fcc" + _number(group), "Fourier cylinder correlation" + _of_group(group, table.cross),
        "How much of the reference is seen in each frame; it fades with damage and, in the first frames, with motion.",
        lambda group=group: fcc_figure(table, group)) for group in range(len(table.cross))]


def _weights(results):
    weights = results.weights()
    return [] if weights is None else [Entry(
        "weights" + _number(group), "Dose weights" + _of_group(group, weights.weight),
        "What each frame contributes at each resolution, beside the standard exposure curve. Bars are standard errors of the fit.",
        lambda group=group: draw_weights(results, group)) for group in range(len(weights.weight))]


def draw_weights(results, group=0):
    """Figure of a job's weights, to the resolution of its correlations."""
    table = results.fcc_total()
    return weights_figure(results.weights(), group, None if table is None else table.frequency_per_angstrom[-1], results.voltage_kilovolt())


def _motion(results):
    keys = spread(results.aligned_keys(), STATISTICS_MOVIES)
    return [Entry("motion", "Motion of particles", "Of %d movies." % len(keys), lambda: motion_figure(results.motion_statistics(keys=keys)))] if keys else []


def _states(results):
    movies = results.movies()
    if not movies:
        return []
    entries = [Entry("movies", "Movies side by side", "Medians over the particles of each movie.", lambda: movies_figure(results.movie_rows()))]
    return entries + [Entry("states", "Movies and particles that left", "What became of every movie, and why particles were left out.",
                            lambda: states_figure(results.movie_rows(), results.left_out_reasons()))]


def _movies(results):
    return [Entry("trajectories_" + key, "Trajectories", "Each line is the way of one particle, drawn longer than it is; discs: one standard deviation of the motion, per axis.",
                  lambda key=key: draw_trajectories_of(results, key)) for key in spread(results.aligned_keys(), SHOWN_MOVIES)]


def draw_trajectories_of(results, key, **options):
    """Figure of one movie's trajectories over its micrograph, if there is one; ``options`` of trajectories_figure."""
    trajectories = results.trajectories(key)
    return trajectories_figure(trajectories, background=background_of(results, key, trajectories.micrograph), **options)


def background_of(results, key, micrograph):
    """The movie's micrograph as a Background: the thumbnail that the engine left, or the upstream micrograph; else None."""
    small = results.thumbnail(key)
    if small is not None:
        return as_background(*small)
    path = results.micrograph_file(micrograph)
    return None if path is None else read_background(path)


def _particles(results):
    entries = []
    for reference in range(len(results.spec.references)):
        if results.particle_stars() and results.movies():
            entries += [Entry("particles" + _number(reference), "Particles before and after", "Of reference %d." % (reference + 1),
                              lambda reference=reference: draw_gallery(results, reference)),
                        Entry("power" + _number(reference), "Spectra of particles", "Means over up to %d particles of reference %d." % (
                            SPECTRA_PARTICLES, reference + 1), lambda reference=reference: draw_spectra(results, reference))]
    return entries


def draw_gallery(results, reference=0):
    """Figure of some particles before and after; None if their images cannot be read (any more)."""
    pair = _pair(results, reference, SHOWN_PARTICLES)
    return None if pair is None else gallery_figure(*pair)


def draw_spectra(results, reference=0):
    """Figure of particles' spectra before and after; None if their images cannot be read (any more)."""
    pair = _pair(results, reference, SPECTRA_PARTICLES)
    return None if pair is None else spectra_figure(*pair)


def _pair(results, reference, count):
    try:
        pairs = results.particle_pairs(reference, count)
    except InputError:
        return None
    after = None if pairs is None else read_particles(pairs.after)
    if after is None:
        return None
    before = None if pairs.before is None else read_particles(pairs.before)
    return before, after, pairs.before_pixel_angstrom, pairs.after_pixel_angstrom


def _prior(results):
    prior = results.hyperparameters()
    rigid = results.spec.motion_prior.rigid
    return [] if prior is None or rigid else [Entry("prior", "Motion prior", "What the prior allows: the data decide within it.", lambda: hyperparameters_figure(prior))]


def _number(index):
    return "" if index == 0 else "_%d" % (index + 1)


def _of_group(group, groups):
    return " of optics group %d" % (group + 1) if len(groups) > 1 else ""
