"""Stores: what is saved is loaded, whatever it holds; unknown and missing keys are sentences."""
import gc
import json
import sys
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from refmotion_plugin.contract import layout, store
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.records import DoseWeights, FccTable, Hyperparameters, Trajectories
from refmotion_plugin.contract.results import JobResults, MovieState, read_status
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, relion_prior
from refmotion_plugin.contract.verdict import JudgedMovie

SIZES = st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 6))
NUMBERS = st.floats(-1e6, 1e6, width=32)


def assert_same(a, b):
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert x == y if isinstance(x, str) else (np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype), field.name


@st.composite
def trajectories(draw):
    n, f, _ = draw(SIZES)
    def draw_array(*shape, dtype=np.float32):
        return draw(arrays(dtype, shape, elements=NUMBERS))
    return Trajectories(draw(st.text(max_size=20).filter(lambda t: "\0" not in t)), np.zeros(n, np.int32), np.arange(n),
                        draw_array(n, 2, dtype=np.float64), draw_array(n, f, 2), draw_array(n, f), draw_array(n, f, 2),
                        draw_array(f, dtype=np.float64), "converged")


@settings(max_examples=30, deadline=None)
@given(trajectories())
def test_trajectories_come_back(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("store") / "t.npz"
    store.save_trajectories(path, record)
    assert_same(record, store.load_trajectories(path))


def test_trajectories_of_an_earlier_version_know_no_deviation_of_motion(tmp_path):
    """There that of the place, which is larger, stands in."""
    track = np.zeros((2, 3, 2), np.float32)
    record = Trajectories("m", np.zeros(2, np.int32), np.arange(2), np.zeros((2, 2)), track, track[..., 0] + 0.5, track, np.arange(3.0), "converged", track[..., 0] + 0.3)
    for known, sd in ((record, 0.3), (replace(record, motion_sd_angstrom=None), 0.5)):
        store.save_trajectories(tmp_path / "t.npz", known)
        found = store.load_trajectories(tmp_path / "t.npz")
        assert np.allclose(found.sd_of_motion_angstrom, sd) and np.allclose(found.deviation_sd_angstrom, 0.5)
        assert (found.motion_sd_angstrom is None) == (sd == 0.5)
    with np.load(tmp_path / "t.npz") as data:
        np.savez(tmp_path / "less.npz", **{name: data[name] for name in data.files if name != "dose_e_per_A2"})
    with pytest.raises(InputError, match="differs in dose_e_per_A2"):
        store.load_trajectories(tmp_path / "less.npz")


@settings(max_examples=20, deadline=None)
@given(SIZES, st.integers(0, 2 ** 31))
def test_tables_and_weights_come_back(tmp_path_factory, sizes, seed):
    g, f, s = sizes
    folder, rng = tmp_path_factory.mktemp("store"), np.random.default_rng(seed)
    fcc = FccTable(rng.random(s), rng.random(f), *[rng.random((g, f, s)) for _ in range(4)])
    store.save_fcc(folder / "f.npz", fcc)
    assert_same(fcc, store.load_fcc(folder / "f.npz"))
    weights = DoseWeights(rng.random((g, f, s)), rng.random(s), rng.random(f), *[rng.random((g, f)) for _ in range(4)], "sum", "fit, 3 Å")
    store.save_weights(folder / "w.npz", weights)
    assert_same(weights, store.load_weights(folder / "w.npz"))


@pytest.mark.parametrize("unknown", [np.zeros(3), np.array([0.0, np.nan])])
def test_what_is_unknown_of_a_judged_movie_is_checked_too(tmp_path, unknown):
    store.save_judged(tmp_path / "j.npz", JudgedMovie(np.zeros(2, int), np.arange(2), np.ones(2), np.ones(2), unknown))
    with pytest.raises(InputError, match="unknown_A2"):
        store.load_judged(tmp_path / "j.npz")


def test_the_same_values_give_the_same_bytes(tmp_path):
    fcc = FccTable(np.arange(3.0), np.arange(2.0), *[np.ones((1, 2, 3))] * 4)
    store.save_fcc(tmp_path / "a.npz", fcc)
    store.save_fcc(tmp_path / "b.npz", fcc)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_full_disk_is_said_once(tmp_path, monkeypatch):
    """On a device that is always full: the sentence, and nothing more when what was half written is thrown away."""
    afterwards = []
    monkeypatch.setattr(sys, "unraisablehook", afterwards.append)
    monkeypatch.setattr(layout, "_temporary_beside", lambda path: str(tmp_path / "full"))
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(InputError, match="no space left on disk while writing .*thumbnail.npz"):
        store.save_thumbnail(tmp_path / "thumbnail.npz", np.ones((400, 400), np.uint8), 1.0)
    gc.collect()
    assert not afterwards and not list(tmp_path.iterdir())


def test_files_of_another_kind_are_named(tmp_path):
    fcc = FccTable(np.arange(3.0), np.arange(2.0), *[np.ones((1, 2, 3))] * 4)
    store.save_fcc(tmp_path / "f.npz", fcc)
    with pytest.raises(InputError, match="does not hold DoseWeights of schema 1.*b_factor_A2"):
        store.load_weights(tmp_path / "f.npz")
    whole = (tmp_path / "f.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:len(whole) // 2])
    for name in ("cut.npz", "none.npz"):
        with pytest.raises(InputError, match="cannot be read as FccTable"):
            store.load_fcc(tmp_path / name)


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", schema=1, cross=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="cannot be read as FccTable"):
        store.load_fcc(tmp_path / "p.npz")


SIGMAS = [f.name for f in fields(Hyperparameters) if isinstance(getattr(DEFAULT_HYPERPARAMETERS, f.name), float)]


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries({name: st.floats(1e-6, 1e6) for name in SIGMAS}), st.sampled_from(["matern", "exponential"]), st.booleans(), st.booleans())
def test_hyperparameters_come_back(tmp_path_factory, values, kernel, correlated, followed):
    record = Hyperparameters(**values, kernel=kernel, correlated_acceleration=correlated, jitter_followed=followed)
    path = tmp_path_factory.mktemp("store") / "h.json"
    store.save_hyperparameters(path, record)
    assert store.load_hyperparameters(path) == record


def test_priors_like_relions_are_accepted(tmp_path):
    store.save_hyperparameters(tmp_path / "h.json", relion_prior(0.4, 1600.0, 2.6))
    assert store.load_hyperparameters(tmp_path / "h.json") == relion_prior(0.4, 1600.0, 2.6)


def test_hyperparameters_of_earlier_versions_leave_the_course_of_the_input_alone_and_follow_the_jitter(tmp_path):
    values = asdict(replace(DEFAULT_HYPERPARAMETERS, velocity_sigma=0.7))
    del values["common_sigma"], values["jitter_followed"]
    (tmp_path / "h.json").write_text(json.dumps(values))
    assert store.load_hyperparameters(tmp_path / "h.json") == replace(DEFAULT_HYPERPARAMETERS, velocity_sigma=0.7, common_sigma=0.0)


@pytest.mark.parametrize("change, part", [
    ({"velocity_sgima": 1.0}, "unknown key 'velocity_sgima'"),
    ({"velocity_sigma": None}, "velocity_sigma is None where a positive number"),
    ({"velocity_sigma": -1.0}, "velocity_sigma is -1.0 where a positive number"),
    ({"acceleration_sigma": "big"}, "acceleration_sigma is 'big'"),
    ({"kernel": "gauss"}, "kernel is 'gauss' where matern or exponential"),
])
def test_wrong_hyperparameters_are_named(tmp_path, change, part):
    (tmp_path / "h.json").write_text(json.dumps({**asdict(DEFAULT_HYPERPARAMETERS), **change}))
    with pytest.raises(InputError, match=part):
        store.load_hyperparameters(tmp_path / "h.json")


def test_all_hyperparameters_or_none(tmp_path):
    values = asdict(DEFAULT_HYPERPARAMETERS)
    del values["correlation_distance_angstrom"], values["jitter_angstrom"]
    (tmp_path / "h.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="has no correlation_distance_angstrom, jitter_angstrom: all of"):
        store.load_hyperparameters(tmp_path / "h.json")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        store.load_hyperparameters(tmp_path / "none.json")


def test_whole_numbers_are_numbers(tmp_path):
    (tmp_path / "h.json").write_text(json.dumps({**asdict(DEFAULT_HYPERPARAMETERS), "velocity_sigma": 1}))
    assert store.load_hyperparameters(tmp_path / "h.json").velocity_sigma == 1.0


# ---- the reader ---------------------------------------------------------------------------------------------------------

def job_folder(tmp_path, events=()):
    (tmp_path / "job.json").write_text(json.dumps({"inputs": {"movies": "m.star"}, "references": [
        {"particles": "p.star", "half1": "1", "half2": "2"}]}))
    (tmp_path / "status.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events) + '{"event": "ali')
    return JobResults(tmp_path)


def movie(key, **states):
    return dict({"key": key, "micrograph": key + ".mrc", "n_particles": 2, "align": "todo", "polish": "todo"}, **states)


def test_states_follow_the_last_word(tmp_path):
    results = job_folder(tmp_path, [
        {"event": "movies", "movies": [movie("a"), movie("b")]},
        {"event": "align", "movie": "a", "state": "failed", "reason": "cut off"},
        {"event": "movies", "movies": [movie("a"), movie("b", align="done")]},
        {"event": "align", "movie": "a", "state": "done"},
        {"event": "polish", "movie": "b", "state": "failed", "reason": "disk"}])
    assert results.movies() == [MovieState("a", "a.mrc", 2, "done", "todo", ""), MovieState("b", "b.mrc", 2, "done", "failed", "disk")]
    assert [m.key for m in results.failed()] == ["b"]


def test_nothing_yet(tmp_path):
    with pytest.raises(InputError, match="holds no job"):
        JobResults(tmp_path)
    results = job_folder(tmp_path)
    assert results.weights() is results.fcc_total() is results.hyperparameters() is results.left_out() is results.progress() is None
    assert results.motion_statistics() is None and results.particle_stars() == [] and read_status(tmp_path / "none") == []
    assert results.summary() == {"movies": 0, "movies_aligned": 0, "movies_polished": 0, "movies_failed": 0, "particles_in_movies": 0}


def test_motion_statistics(tmp_path):
    dose = np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    track = np.zeros((2, 6, 2), np.float32)
    track[0, :, 1] = np.arange(6)                     # 1 A per frame along x
    track[1, 3:, 0] = 2.0                             # one step of 2 A along y
    initial = np.zeros_like(track)
    initial[1] = track[1] + 5.0                       # a constant offset is no motion
    zero = np.zeros(2)
    results = job_folder(tmp_path, [{"event": "movies", "movies": [movie("a", align="done")]}])
    store.save_trajectories(results.layout.trajectories("a"), Trajectories(
        "a.mrc", zero.astype(np.int32), np.arange(2), np.zeros((2, 2)), track, track[..., 0], initial, dose, "converged"))
    motion = results.motion_statistics(early_dose_e_per_A2=4.0)
    np.testing.assert_allclose(motion.path_length_angstrom, [5.0, 2.0])
    np.testing.assert_allclose(motion.early_angstrom, [4.0, 2.0])
    np.testing.assert_allclose(motion.local_rms_angstrom, [np.std(np.arange(6.0)), 0.0], atol=1e-6)
    np.testing.assert_allclose(motion.speed_angstrom_per_frame ** 2, [0.5, 0.5, 2.5, 0.5, 0.5])
    np.testing.assert_allclose(motion.speed_percentiles_angstrom[1], [0.5, 0.5, 1.5, 0.5, 0.5])
    np.testing.assert_allclose(motion.departure_rms_angstrom ** 2, 0.5 * (np.arange(6) - 2.5) ** 2)
    assert results.summary()["mean_path_length_angstrom"] == 3.5
