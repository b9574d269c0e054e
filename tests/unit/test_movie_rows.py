"""One line per movie: states, reasons, and the numbers that the alignment left or that its trajectories give."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from refmotion_plugin.contract import store
from refmotion_plugin.contract.layout import mark_done
from refmotion_plugin.contract.records import Trajectories
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.star import read_corrected_micrographs
from refmotion_plugin.engine.run.job import run_job
from tests.unit.job_stand_ins import FakeStages, write_project


def job_with_movies(folder):
    out = folder / "out"
    out.mkdir()
    (out / "job.json").write_text(write_project(folder).to_json())
    results = JobResults(out)
    movies = [{"key": key, "micrograph": "M/%s.mrc" % key, "align": "todo", "polish": "todo", "n_particles": 2} for key in "abcd"]
    events = [{"event": "movies", "movies": movies}, {"event": "align", "movie": "a", "state": "done"}, {"event": "polish", "movie": "a", "state": "done"},
              {"event": "align", "movie": "b", "state": "done"}, {"event": "align", "movie": "c", "state": "failed", "reason": "it is cut off: copy it again"}]
    results.layout.status.write_text("".join(json.dumps(event) + "\n" for event in events))
    track = np.zeros((2, 3, 2), np.float32)
    track[:, 1:, 0] = 3.0
    for key in "ab":
        store.save_trajectories(results.layout.trajectories(key), Trajectories(
            "M/%s.mrc" % key, np.zeros(2, np.int32), np.arange(2), np.zeros((2, 2)), track, track[..., 0] * 0 + 0.5, track, np.array([0.5, 1.5, 2.5]), "converged",
            track[..., 0] * 0 + 0.3))
    mark_done(results.layout.done("a", "align"), "x", stop_reason="iteration limit", strength=0.3,
              motion=dict(path_length_angstrom=7.0, early_angstrom=2.0, local_rms_angstrom=1.0, sd_angstrom=0.2))
    return results


def test_rows(tmp_path):
    a, b, c, d = job_with_movies(tmp_path).movie_rows()
    assert [row.state for row in (a, b, c, d)] == ["polished", "aligned", "failed", "to do"]
    assert (a.path_length_angstrom, a.fit, a.strength) == (7.0, "iteration limit", 0.3)                  # as the alignment left them
    assert (b.path_length_angstrom, b.local_rms_angstrom, b.fit, b.strength) == (3.0, 0.0, "", None)      # computed
    assert abs(b.sd_angstrom - 0.3 * 2 ** 0.5) < 1e-6           # of the motion, as the departure beside which it stands is: both axes, no constant
    assert c.reason == "it is cut off: copy it again" and c.path_length_angstrom is None and d.early_angstrom is None


def test_the_micrograph_is_found_beside_the_list_or_not_at_all(tmp_path):
    results = job_with_movies(tmp_path)
    assert results.micrograph_file("M/none.mrc") is None and results.thumbnail("a") is None
    (tmp_path / "M").mkdir(exist_ok=True)
    (tmp_path / "M" / "a.mrc").write_bytes(b"")
    assert results.micrograph_file("M/a.mrc").name == "a.mrc"
    store.save_thumbnail(results.layout.thumbnail("a"), np.arange(6, dtype=np.uint8).reshape(2, 3), 8.0)
    image, pixel = results.thumbnail("a")
    assert image.tolist() == [[0, 1, 2], [3, 4, 5]] and pixel == 8.0
    results.layout.thumbnail("a").write_bytes(b"not whole")
    assert results.thumbnail("a") is None


def test_a_job_leaves_motion_strength_and_a_thumbnail_where_there_is_no_micrograph(tmp_path):
    spec, stages = write_project(tmp_path), FakeStages()
    recipes = replace(stages.recipes(), thumbnail=lambda movie, stack, plan, device: (np.full((2, 2), len(stack), np.uint8), 9.0))
    named = MovieNames(spec)
    named.first.parent.mkdir(exist_ok=True)
    named.first.write_bytes(b"an image")
    run_job(tmp_path / "out", spec, recipes=recipes)
    results = JobResults(tmp_path / "out")
    with_image, without = results.movies()[:2]
    assert results.thumbnail(with_image.key) is None and results.thumbnail(without.key)[1] == 9.0
    notes = json.loads(results.layout.done(without.key, "align").read_text())
    assert set(notes["motion"]) == {"path_length_angstrom", "early_angstrom", "local_rms_angstrom", "sd_angstrom"} and notes["stop_reason"] == "converged"


class MovieNames:
    """Where the first movie's micrograph would lie: beside the list of movies, as RELION names it."""

    def __init__(self, spec):
        name = read_corrected_micrographs(spec.inputs.movies)[0][0].name
        self.first = Path(spec.inputs.movies).parents[len(Path(name).parts) - 1] / name
