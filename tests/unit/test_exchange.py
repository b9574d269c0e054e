"""Dose weights and hyperparameters to the formats of others and back; what a format cannot hold has to be given."""
import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refmotion_plugin.contract import exchange
from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.exchange import Exposure, cryosparc_frequencies, read_weights, write_weights
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, JobSpec, relion_prior
from refmotion_plugin.contract.weighting import b_factors, band_to, damage_rate, normalise, resample
from refmotion_plugin.engine import cli
from refmotion_plugin.engine.run.job import run_job
from refmotion_plugin.engine.stages import weigh
from refmotion_plugin.engine.stages.prepared import choose_hyperparameters

from tests.unit import job_stand_ins

PIXEL, DOSE, FRAMES = 0.9, Exposure(1.25, 2.0), 24
K = np.arange(301) / 300.0          # a box of 300 A
BAND = K <= 0.5 / PIXEL


def weights(groups=1, normalisation="sum", doses=DOSE.doses(FRAMES), k=K, initial_b=60.0):
    """Damage, and a burst of motion in the first frames."""
    burst = np.exp(-(doses - doses[0]) / 2.0)[:, None]
    tables = [normalise(exposure_amplitude(doses, k) * (1 - 0.3 * burst) * np.exp(-(initial_b + g) * burst * np.minimum(k, 0.4) ** 2 / 4), normalisation)
              for g in range(groups)]
    b_factor, scale = zip(*[b_factors(t, k, band_to(0.33, k)) for t in tables])
    error = np.full((groups, len(doses)), 0.5)
    return DoseWeights(np.stack(tables), k, doses, np.stack(b_factor), np.stack(scale), error, 0.1 * error, normalisation, "a test: Å, ü")


def same(first, second, tolerance):
    for field in fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        assert a == b if isinstance(a, str) else np.allclose(a, b, rtol=tolerance, atol=1e-12), field.name


# ---- round trips ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, tolerance", [("w.npz", 0.0), ("w.json", 2e-8)])
@pytest.mark.parametrize("normalisation", ["sum", "power", "peak"])
def test_our_own_formats_hold_everything(tmp_path, name, tolerance, normalisation):
    stored = weights(2, normalisation)
    write_weights(tmp_path / name, stored)
    same(stored, read_weights(tmp_path / name), tolerance)


def test_numpy_archive_to_cryosparc_and_back(tmp_path):
    stored = weights()
    write_weights(tmp_path / "w.npy", stored, pixel_angstrom=PIXEL)
    table = np.load(str(tmp_path / "w.npy"), allow_pickle=False)
    assert table.dtype == np.float32 and table.shape[0] == FRAMES and table.max() <= 1.0
    back = read_weights(tmp_path / "w.npy", DOSE, PIXEL)
    moved = resample(back, 0, stored.dose_e_per_A2, K[BAND])
    np.testing.assert_allclose(moved, stored.weight[0][:, BAND], atol=1e-3)
    assert back.normalisation == "sum" and "CryoSPARC" in back.source


@settings(max_examples=25, deadline=None)
@given(pixel=st.floats(0.4, 2.5), box=st.integers(80, 600), frames=st.integers(1, 12))
def test_any_axis_survives_cryosparc(tmp_path_factory, pixel, box, frames):
    k = np.arange(box // 2 + 1) / (box * pixel)
    stored = weights(doses=Exposure(1.0).doses(frames), k=k)
    path = tmp_path_factory.mktemp("axis") / "w.npy"
    write_weights(path, stored, pixel_angstrom=pixel)
    back = read_weights(path, Exposure(1.0), pixel)
    np.testing.assert_allclose(resample(back, 0, stored.dose_e_per_A2, k), stored.weight[0], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(b=st.lists(st.floats(-50, 300), min_size=2, max_size=30), seed=st.integers(0, 99))
def test_b_factors_survive_every_format(tmp_path_factory, b, seed):
    """Weights that are B-factors lose nothing relative to each other in any format."""
    folder, exposure = tmp_path_factory.mktemp("b"), Exposure(1.5)
    scale = np.random.default_rng(seed).uniform(0.3, 1.0, len(b))
    exchange.write_bfactors_star(folder / "b.star", np.array(b), scale)
    first = read_weights(folder / "b.star", exposure)
    np.testing.assert_allclose(first.weight.sum(1), 1.0)
    write_weights(folder / "c.json", first)
    write_weights(folder / "c.npy", read_weights(folder / "c.json"), pixel_angstrom=1.0)
    last = read_weights(folder / "c.npy", exposure, 1.0)
    np.testing.assert_allclose(np.diff(last.b_factor_A2[0]), np.diff(b), atol=0.2)
    np.testing.assert_allclose(np.diff(np.log(last.scale[0])), np.diff(np.log(scale)), atol=2e-3)


def test_b_factors_are_lossy_and_say_how_much():
    plain = weights(initial_b=0.0)
    of_b_factors = replace(plain, weight=normalise(np.exp(-np.arange(FRAMES)[:, None] * 3.0 * K ** 2 / 4), "sum")[None],
                           b_factor_A2=3.0 * np.arange(FRAMES)[None], scale=np.ones((1, FRAMES)))
    assert exchange.b_factor_misfit(of_b_factors) < 1e-9 < 0.01 < exchange.b_factor_misfit(plain) < 0.5


# ---- the axis of CryoSPARC --------------------------------------------------------------------------------------------------

def cryosparc_file(folder, n_bins=600, doses=DOSE.doses(FRAMES)):
    """What CryoSPARC writes: the exposure curve on bins that end at twice Nyquist."""
    table = exposure_amplitude(doses, np.arange(n_bins) / (n_bins - 1) / PIXEL)
    np.save(str(folder / "refm_empirical_dw.npy"), table.astype(np.float32), allow_pickle=False)
    return folder / "refm_empirical_dw.npy"


def test_bins_end_at_twice_nyquist():
    k = cryosparc_frequencies(600, PIXEL)
    assert k[0] == 0 and k[-1] == pytest.approx(2 * 0.5 / PIXEL) and np.allclose(np.diff(k), k[1])


def test_the_exposure_curve_is_found_where_it_belongs(tmp_path):
    """Read as ending at Nyquist the weights fall at half the frequency: far from the curve."""
    found = read_weights(cryosparc_file(tmp_path), DOSE, PIXEL)
    k = np.linspace(0.05, 0.5, 40)
    wanted = normalise(exposure_amplitude(found.dose_e_per_A2, k), "sum")
    assert np.abs(resample(found, 0, found.dose_e_per_A2, k) - wanted).max() < 2e-4
    halved = replace(found, frequency_per_angstrom=found.frequency_per_angstrom / 2)
    assert np.abs(resample(halved, 0, found.dose_e_per_A2, k) - wanted).max() > 0.02


@pytest.mark.parametrize("pixel, dose, odd", [(PIXEL, DOSE, False), (2 * PIXEL, DOSE, True), (PIXEL / 2, DOSE, True),
                                              (PIXEL, Exposure(0.5, 0.0), True)])
def test_a_wrong_axis_or_dose_is_noticed(tmp_path, pixel, dose, odd):
    found = read_weights(cryosparc_file(tmp_path), dose, pixel)
    text, noticed = exchange.damage_sentence(found)
    assert noticed == odd and ("unusual" in text) == odd
    assert odd or damage_rate(found) == pytest.approx(1.0, abs=0.03)


def test_damage_is_not_judged_on_a_few_frames():
    assert exchange.damage_sentence(weights(doses=Exposure(1.0).doses(6))) == ("", False)


def test_the_correlation_beside_says_where_the_bins_end(tmp_path):
    file = cryosparc_file(tmp_path)
    for bins, times in ((300, 2), (301, 2), (600, 1)):
        np.save(str(tmp_path / "refm_fcc.npy"), np.ones((FRAMES, bins)), allow_pickle=False)
        assert read_weights(file, DOSE, PIXEL).frequency_per_angstrom[-1] == pytest.approx(times * 0.5 / PIXEL)


def test_a_file_to_replace_keeps_its_shape_and_the_curve_goes_on(tmp_path):
    stored = weights(k=np.arange(100) / 300.0)
    for voltage in (None, 300.0):
        write_weights(tmp_path / "w.npy", stored, pixel_angstrom=PIXEL, bins=512, voltage_kilovolt=voltage)
        table = np.load(str(tmp_path / "w.npy"))
        assert table.shape == (FRAMES, 512) and np.isfinite(table).all()
        decay = table[-1, -1] / table[-1, 200]
        assert decay == pytest.approx(1.0) if voltage is None else decay < 0.7


# ---- other frames -----------------------------------------------------------------------------------------------------------

def test_resampling_to_the_same_frames_changes_nothing():
    stored = weights(2)
    moved = exchange.for_frames(stored, stored.dose_e_per_A2)
    np.testing.assert_allclose(moved.weight, stored.weight, rtol=1e-12)
    np.testing.assert_array_equal(moved.b_factor_error_A2, stored.b_factor_error_A2)
    assert exchange.for_exposure(stored, DOSE) is stored and exchange.for_exposure(stored) is stored


def test_other_frames_follow_the_dose():
    finer = Exposure(0.625, 2.0)
    moved = exchange.for_exposure(weights(), finer, 48)
    wanted = weights(doses=finer.doses(48), initial_b=60.0 * (0.625 / DOSE.dose_per_frame_e_per_A2) ** 2)     # half the path, a quarter of the blur
    assert moved.weight.shape == (1, 48, 301) and np.allclose(moved.weight.sum(1), 1.0)
    np.testing.assert_allclose(moved.weight[0][8:, BAND], wanted.weight[0][8:, BAND], atol=3e-3)


@pytest.mark.parametrize("n_frames", [5, 30])
def test_fewer_or_more_frames_of_the_same_dose(n_frames):
    moved = exchange.for_exposure(weights(), None, n_frames)
    np.testing.assert_allclose(moved.dose_e_per_A2, DOSE.doses(n_frames))
    assert np.allclose(moved.weight.sum(1), 1.0)


# ---- JSON by hand -----------------------------------------------------------------------------------------------------------

def json_file(folder, **changes):
    data = {"what": "dose weights", "dose_e_per_A2": [1.0, 2.0, 3.0], "groups": [{"b_factor_A2": [40, 10, 20]}]}
    data.update(changes)
    (folder / "w.json").write_text(json.dumps({k: v for k, v in data.items() if v is not None}))
    return folder / "w.json"


def test_a_few_numbers_written_by_hand_are_enough(tmp_path):
    found = read_weights(json_file(tmp_path))
    k = found.frequency_per_angstrom
    np.testing.assert_allclose(found.weight[0][0] / found.weight[0][1], np.exp(-30 * k ** 2 / 4))
    assert found.normalisation == "sum" and (found.scale == 1).all() and (found.scale_error == 0).all()


def test_an_edited_line_counts(tmp_path):
    write_weights(tmp_path / "w.json", weights())
    data = json.loads((tmp_path / "w.json").read_text(encoding="utf-8"))
    data["groups"][0]["weight"][0] = [0.0] * len(K)
    (tmp_path / "w.json").write_text(json.dumps(data))
    found = read_weights(tmp_path / "w.json")
    assert (found.weight[0, 0] == 0).all() and np.allclose(found.weight.sum(1), 1.0)


# ---- wrong files: one sentence each -------------------------------------------------------------------------------------------

GROUP = {"b_factor_A2": [1, 2, 3]}


@pytest.mark.parametrize("changes, part", [
    ({"what": "particles"}, "not a JSON file of dose weights"), ({"schema": 99}, "not a JSON file of dose weights"),
    ({"wight": 1}, "unknown key 'wight'"), ({"dose_e_per_A2": None}, "dose_e_per_A2 must be a list of finite numbers"),
    ({"dose_e_per_A2": [1, 1, 2]}, "must grow"), ({"dose_e_per_A2": []}, "a list of finite numbers"),
    ({"frequency_per_angstrom": [0.2, 0.1]}, "growing numbers"), ({"normalisation": "mean"}, "sum, power or peak"),
    ({"groups": []}, "has no groups"), ({"groups": [{}]}, "neither weight nor b_factor_A2"), ({"groups": None}, "has no groups"),
    ({"groups": [{"b_factor_A2": [1, 2]}]}, "b_factor_A2 must be 3 finite numbers"),
    ({"groups": [{"b_factor_A2": [1, 2, "x"]}]}, "b_factor_A2 must be 3 finite numbers"),
    ({"groups": [dict(GROUP, sigma=1)]}, "unknown key 'sigma' in a group"),
    ({"groups": [{"weight": [[1, 1]] * 3}]}, "weight must be 3 x 513 finite numbers"),
    ({"frequency_per_angstrom": [0, 0.1], "groups": [{"weight": [[1, -1]] * 3}]}, "must not be negative"),
])
def test_json_that_is_wrong(tmp_path, changes, part):
    with pytest.raises(InputError, match=part) as error:
        read_weights(json_file(tmp_path, **changes))
    assert "w.json" in str(error.value) and "\n" not in str(error.value)


def saved(array):
    def write(path):
        np.save(str(path), array, allow_pickle=array.dtype == object)
    return write


def cut(path):
    np.save(str(path), np.ones((40, 100)))
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize("write, part", [
    (saved(np.ones(5)), "array of shape 5 where"), (saved(np.ones((2, 3, 4))), "array of shape 2x3x4 where"),
    (saved(np.ones((4, 1))), "array of shape 4x1"), (saved(np.float64(3.0)), r"array of shape \(\) where"),
    (saved(np.array([[1.0, np.nan], [1.0, 1.0]])), "frame 1, bin 2 is nan"), (saved(np.array([[1.0, 1.0], [-2.0, 1.0]])), "frame 2, bin 1 is -2"),
    (saved(np.array([[1.0, 0.0], [1.0, 0.0]])), "weight 0 in bin 2"), (saved(np.ones((3, 4), dtype=complex)), "not a NumPy file"),
    (saved(np.array([[{}, {}]], dtype=object)), "not a NumPy file"), (saved(np.array([["a", "b"]])), "not a NumPy file"),
    (lambda path: path.write_bytes(b"PK\x03\x04 an archive"), "not a NumPy file"), (lambda path: path.write_bytes(b""), "not a NumPy file"),
    (cut, "cut off"), (lambda path: None, "cannot be read"),
])
def test_arrays_that_are_wrong(tmp_path, write, part):
    write(tmp_path / "w.npy")
    with pytest.raises(InputError, match=part) as error:
        read_weights(tmp_path / "w.npy", DOSE, PIXEL)
    assert "w.npy" in str(error.value) and "\n" not in str(error.value)


def test_a_pickle_is_never_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path.joinpath("harm").write_text, ("done",))
    np.save(str(tmp_path / "w.npy"), np.array([[Harm()]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a NumPy file"):
        read_weights(tmp_path / "w.npy", DOSE, PIXEL)
    assert not (tmp_path / "harm").exists()


def test_what_a_format_lacks_must_be_given(tmp_path):
    file = cryosparc_file(tmp_path)
    with pytest.raises(InputError, match="hold no frequencies: give the pixel size"):
        read_weights(file, DOSE)
    with pytest.raises(InputError, match="hold no doses: give the dose per frame"):
        read_weights(file, None, PIXEL)
    with pytest.raises(InputError, match="have 24 frames but the movies have 20"):
        read_weights(file, DOSE.doses(20), PIXEL)
    with pytest.raises(InputError, match="needs the pixel size"):
        write_weights(tmp_path / "out.npy", weights())
    with pytest.raises(InputError, match="at least 2 bins, not 1"):
        write_weights(tmp_path / "out.npy", weights(), pixel_angstrom=1.0, bins=1)
    with pytest.raises(InputError, match="group 3 was asked for, but the dose weights have 2: give 1 to 2"):
        write_weights(tmp_path / "out.star", weights(2), group=2)
    for name, action in (("w.txt", read_weights), ("w.txt", lambda p: write_weights(p, weights()))):
        with pytest.raises(InputError, match=r"\*.npz \(as weights.npz\), .* or \*.npy"):
            action(tmp_path / name)


# ---- hyperparameters ----------------------------------------------------------------------------------------------------------

@settings(max_examples=30, deadline=None)
@given(sigmas=st.tuples(st.floats(0.01, 10), st.floats(10, 1e5), st.floats(0.01, 10)))
def test_relion_s_sigmas_come_back(tmp_path_factory, sigmas):
    path = tmp_path_factory.mktemp("opt") / "opt_params_all_groups.txt"
    path.write_text("%r %r %r\n" % sigmas)
    prior = exchange.read_hyperparameters(path)
    assert prior == relion_prior(*sigmas) and prior.velocity_sigma == pytest.approx(0.8 * sigmas[0])
    exchange.write_hyperparameters(path, prior)
    np.testing.assert_allclose([float(v) for v in path.read_text().split()], sigmas, rtol=1e-5)
    assert exchange.lost_in_relion(prior) == []


def test_our_hyperparameters_come_back_and_lose_in_relion_s_format(tmp_path):
    exchange.write_hyperparameters(tmp_path / "h.json", DEFAULT_HYPERPARAMETERS)
    assert exchange.read_hyperparameters(tmp_path / "h.json") == DEFAULT_HYPERPARAMETERS
    lost = exchange.lost_in_relion(DEFAULT_HYPERPARAMETERS)
    assert {"early_factor", "kernel", "jitter_angstrom"} <= set(lost) and "velocity_sigma" not in lost


@pytest.mark.parametrize("name, text, part", [
    ("opt.txt", "0.4 1600\n", "holds 2 numbers"), ("opt.txt", "a b c\n", "three sigmas"), ("opt.txt", "1 2 -3", "three positive sigmas"),
    ("opt.txt", "nan 1 1", "three positive sigmas"), ("h.json", "{}", "all of"), ("h.star", "", "was expected")])
def test_wrong_hyperparameters(tmp_path, name, text, part):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=part) as error:
        exchange.read_hyperparameters(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_hyperparameters_are_not_written_as_anything(tmp_path):
    with pytest.raises(InputError, match="cannot be written as"):
        exchange.write_hyperparameters(tmp_path / "h.star", DEFAULT_HYPERPARAMETERS)


# ---- in the engine ------------------------------------------------------------------------------------------------------------

def test_the_engine_takes_every_format(tmp_path):
    stored, band = weights(), band_to(1 / 3.0, K)
    lost = {"bfactors.star": exchange.b_factor_misfit(stored) / FRAMES + 1e-6}
    for name in exchange.WEIGHT_FORMATS.values():
        write_weights(tmp_path / name, stored, pixel_angstrom=PIXEL)
        found = weigh.load_weights(tmp_path / name, stored.dose_e_per_A2, "sum", PIXEL)
        moved = resample(found, 0, stored.dose_e_per_A2, K[band])
        assert np.abs(moved - stored.weight[0][:, band]).max() < lost.get(name, 1e-3), name


@pytest.mark.parametrize("given, expected", [(None, job_stand_ins.PIXEL), (0.75, 0.75)])
def test_a_job_takes_a_cryosparc_file_at_the_pixel_of_its_movies(tmp_path, given, expected):
    spec, fake = job_stand_ins.write_project(tmp_path / "project"), job_stand_ins.FakeStages()
    file = cryosparc_file(tmp_path, 40, Exposure(1.2).doses(job_stand_ins.FRAMES))
    spec = spec.model_copy(update={"dose": spec.dose.model_copy(update={"weights_file": str(file), "weights_pixel_angstrom": given})})
    outcome = run_job(tmp_path / "OUT", spec, recipes=replace(fake.recipes(), load_weights=weigh.load_weights))
    found = JobResults(tmp_path / "OUT").weights()
    assert outcome.particles_written == 6 and fake.count("load") == 3 and fake.count("fit_weights") == 0
    assert found.frequency_per_angstrom[-1] == pytest.approx(1.0 / expected)
    np.testing.assert_allclose(found.dose_e_per_A2, Exposure(1.2).doses(job_stand_ins.FRAMES))


def test_a_file_without_doses_has_those_of_the_first_movie_of_as_many_frames(tmp_path):
    spec, fake = job_stand_ins.write_project(tmp_path / "project"), job_stand_ins.FakeStages()
    star = tmp_path / "project" / "mic_0.star"
    star.write_text(re.sub(r"(rlnImageSizeZ\s+)4", r"\g<1>3", star.read_text()))         # stopped early

    def run(frames):
        file = cryosparc_file(tmp_path, 40, Exposure(1.2).doses(frames))
        given = spec.model_copy(update={"dose": spec.dose.model_copy(update={"weights_file": str(file)})})
        run_job(tmp_path / "OUT", given, recipes=replace(fake.recipes(), load_weights=weigh.load_weights))

    run(job_stand_ins.FRAMES)
    np.testing.assert_allclose(JobResults(tmp_path / "OUT").weights().dose_e_per_A2, Exposure(1.2).doses(job_stand_ins.FRAMES))
    with pytest.raises(InputError, match="have 5 frames but the movies have 3"):
        run(5)


def test_a_job_takes_relion_s_sigmas_from_their_file(tmp_path):
    (tmp_path / "opt_params_all_groups.txt").write_text("0.5 5000 2\n")
    data = {"inputs": {"movies": "m"}, "references": [{"particles": "p", "half1": "a", "half2": "b"}],
            "motion_prior": {"hyperparameters_file": str(tmp_path / "opt_params_all_groups.txt")}}
    assert choose_hyperparameters(JobSpec.build(data)) == relion_prior(0.5, 5000.0, 2.0)


# ---- the commands -------------------------------------------------------------------------------------------------------------

def refmotion(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    return (code,) + tuple(capsys.readouterr())


def test_commands_convert_weights(tmp_path, capsys):
    write_weights(tmp_path / "w.npz", weights(2))
    code, out, _ = refmotion(capsys, "convert-weights", tmp_path / "w.npz", tmp_path / "w.json")
    assert code == 0 and "24 frames to 31.4 e/A^2, 2 optics groups" in out and "holds one" not in out
    code, out, _ = refmotion(capsys, "convert-weights", tmp_path / "w.json", tmp_path / "b.star", "--group", "2")
    assert code == 0 and "2 of 2 was written" in out and "% of the mean weight" in out
    code, out, _ = refmotion(capsys, "convert-weights", tmp_path / "w.npz", tmp_path / "w.npy", "--pixel", PIXEL, "--dose-per-frame", "0.625",
                             "--pre-exposure", "2", "--frames", "40", "--bins", "256", "--voltage", "300")
    assert code == 0 and np.load(str(tmp_path / "w.npy")).shape == (40, 256)
    code, out, _ = refmotion(capsys, "convert-weights", tmp_path / "w.npy", tmp_path / "v.npz", "--pixel", PIXEL, "--dose-per-frame", "0.625",
                             "--pre-exposure", "2", "--normalisation", "power")
    found = read_weights(tmp_path / "v.npz")
    assert found.normalisation == "power" and found.dose_e_per_A2[0] == pytest.approx(2.3125) and found.weight.shape == (1, 40, 256)


@pytest.mark.parametrize("arguments, part", [
    (("w.npz", "w.npy"), "needs the pixel size"), (("none.npz", "w.json"), "cannot be read"), (("w.npz", "w.txt"), "cannot be written as"),
    (("b.star", "w.json"), "give the dose per frame"), (("w.npz", "b.star", "--group", "3"), "group 3 was asked for"),
    (("w.npz", "w.json", "--pre-exposure", "3"), "give --dose-per-frame too")])
def test_commands_refuse_in_one_sentence(tmp_path, capsys, arguments, part):
    write_weights(tmp_path / "w.npz", weights(2))
    write_weights(tmp_path / "b.star", weights())
    code, _, error = refmotion(capsys, "convert-weights", *[tmp_path / a if "." in a else a for a in arguments])
    assert code == cli.EXIT_INPUT and part in error and error.count("\n") == 1


@pytest.mark.parametrize("dose", ["nan", "inf", "-3"])
def test_a_dose_before_the_first_frame_is_a_number_from_zero_up(tmp_path, capsys, dose):
    with pytest.raises(SystemExit) as stop:
        refmotion(capsys, "convert-weights", tmp_path / "w.npz", tmp_path / "b.star", "--dose-per-frame", "1", "--pre-exposure", dose)
    assert stop.value.code == 2 and "%s is not a number from 0 up" % dose in capsys.readouterr().err


def test_commands_convert_hyperparameters(tmp_path, capsys):
    exchange.write_hyperparameters(tmp_path / "h.json", DEFAULT_HYPERPARAMETERS)
    code, out, _ = refmotion(capsys, "convert-hyperparameters", tmp_path / "h.json", tmp_path / "opt_params.txt")
    assert code == 0 and "RELION's prior has no early_factor" in out
    code, out, _ = refmotion(capsys, "convert-hyperparameters", tmp_path / "opt_params.txt", tmp_path / "back.json")
    assert code == 0 and "RELION's prior" not in out
    back = exchange.read_hyperparameters(tmp_path / "back.json")
    assert back.velocity_sigma == pytest.approx(DEFAULT_HYPERPARAMETERS.velocity_sigma) and back.kernel == "exponential"
