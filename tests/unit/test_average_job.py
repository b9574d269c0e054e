"""The command ``refmotion average``: files and names, faults, resume, what RELION reads."""
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
import torch

from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.averages import AverageLayout, AverageResults
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.contract.star import read_corrected_micrographs, read_movie_metadata, read_tables, write_bfactors_star, write_tables
from refmotion_plugin.contract.store import save_weights
from refmotion_plugin.engine import cli
from refmotion_plugin.engine.options import average_spec
from refmotion_plugin.engine.run import average_movie
from refmotion_plugin.engine.run.average_tasks import average_tasks, given_weights
from refmotion_plugin.engine.run.devices import DeviceLost
from refmotion_plugin.engine.movies.stack import load_movie
from refmotion_plugin.engine.run.inputs import MovieCatalogue
from refmotion_plugin.engine.stages import budget

from tests.unit.average_movies import DOSE, PIXEL, write_list, write_movie

SHAPE = (5, 40, 48)
SHIFT = np.arange(10).reshape(5, 2) * [0.7, -0.4]
OPTIONS = ("--device", "cpu", "--threads", "1", "--hot-pixel-sigma", "0")


@pytest.fixture
def movies(tmp_path):
    """Three movies of noise and their list."""
    for i, name in enumerate(("a", "b", "c")):
        write_movie(tmp_path, name, np.random.default_rng(i).poisson(4.0, size=SHAPE), SHIFT)
    return write_list(tmp_path, ["a", "b", "c"], groups=[1, 2, 1])


def average(folder, movies, *options):
    """Exit code of the command."""
    return cli.main(["average", str(folder), "--movies", str(movies), *OPTIONS, *options])


def image(path):
    with mrcfile.open(str(path)) as file:
        return np.array(file.data), float(file.voxel_size.x), int(file.header.mode)


def test_names_and_lists_are_relions(movies, tmp_path):
    out = tmp_path / "OUT"
    assert average(out, movies, "--binning", "2", "--even-odd", "unweighted") == 0
    micrographs, optics = read_corrected_micrographs(out / "corrected_micrographs.star")
    assert [m.name for m in micrographs] == [str(out / "micrographs" / (n + ".mrc")) for n in "abc"]
    assert [m.optics_group for m in micrographs] == [1, 2, 1] and set(optics.numbers("rlnMicrographPixelSize")) == {2 * PIXEL}
    table = read_tables(out / "corrected_micrographs.star")["micrographs"]
    assert table.columns["rlnAccumMotionTotal"] == ["0.5", "1.5", "2.5"]             # other columns stay
    for column, ending in (("rlnMicrographName", ""), ("rlnMicrographNameNoDW", "_noDW"), ("rlnMicrographNameEven", "_EVN"),
                           ("rlnMicrographNameOdd", "_ODD")):
        assert table.columns[column][1] == str(out / "micrographs" / ("b%s.mrc" % ending))
        data, pixel, mode = image(table.columns[column][1])
        assert (data.shape, pixel, mode) == ((20, 24), pytest.approx(2 * PIXEL), 2)
    metadata = read_movie_metadata(micrographs[1].metadata_star, micrographs[1].name)
    assert metadata.binning == 2 and metadata.original_pixel_angstrom == PIXEL and np.allclose(metadata.global_shift_xy_px, SHIFT)
    results = AverageResults(out)
    assert [m.state for m in results.movies()] == ["done"] * 3 and results.failed() == []
    assert list(results.micrographs("odd")) == ["MotionCorr/%s.mrc" % n for n in "abc"]


def test_columns_of_what_is_not_written_do_not_stay(movies, tmp_path):
    assert average(tmp_path / "OUT", movies, "--no-unweighted") == 0
    assert "rlnMicrographNameNoDW" not in read_tables(tmp_path / "OUT" / "corrected_micrographs.star")["micrographs"]
    assert not list((tmp_path / "OUT" / "micrographs").glob("*_noDW.mrc"))


def test_images_of_an_earlier_run_do_not_stay_beside_those_of_another_size(movies, tmp_path):
    assert average(tmp_path / "OUT", movies, "--even-odd", "weighted") == average(tmp_path / "OUT", movies, "--no-unweighted", "--binning", "2") == 0
    assert sorted(p.name for p in (tmp_path / "OUT" / "micrographs").glob("*.mrc")) == ["a.mrc", "b.mrc", "c.mrc"]


def test_16_bit_floats(movies, tmp_path):
    assert average(tmp_path / "full", movies) == average(tmp_path / "half", movies, "--float16") == 0
    full, half = (image(tmp_path / name / "micrographs" / "a.mrc") for name in ("full", "half"))
    assert (full[2], half[2]) == (2, 12) and np.allclose(full[0], half[0], rtol=1e-3)


@pytest.mark.parametrize("spoil, part", [
    (lambda path: path.write_bytes(path.read_bytes()[:6000]), "Movies/b.mrcs.*(truncated|incomplete)"),
    (lambda path: path.unlink(), "Movies/b.mrcs does not exist"),
])
def test_a_broken_movie_is_listed_and_the_rest_is_done(movies, tmp_path, capsys, spoil, part):
    out = tmp_path / "OUT"
    spoil(tmp_path / "Movies" / "b.mrcs")
    (tmp_path / "c.star").unlink()
    assert average(out, movies) == cli.EXIT_FAILED_MOVIES
    text = capsys.readouterr().out
    assert "1 movies averaged" in text and "2 movies failed" in text and re.search(part, text) and "c.star cannot be read" in text
    failed = {m.micrograph: m.reason for m in AverageResults(out).failed()}
    assert set(failed) == {"MotionCorr/b.mrc", "MotionCorr/c.mrc"} and re.search(part, failed["MotionCorr/b.mrc"])
    assert [m.name for m in read_corrected_micrographs(out / "corrected_micrographs.star")[0]] == [str(out / "micrographs" / "a.mrc")]


def test_nothing_that_can_be_averaged(movies, tmp_path, capsys):
    for path in (tmp_path / "Movies").iterdir():
        path.unlink()
    assert average(tmp_path / "OUT", movies) == cli.EXIT_INPUT
    assert "no movie could be averaged; the first reason: movie" in capsys.readouterr().err
    assert not (tmp_path / "OUT" / "corrected_micrographs.star").exists()


def stamps(out):
    return {p.name: p.stat().st_mtime_ns for p in (out / "micrographs").glob("*.mrc")}


def test_the_same_command_does_only_what_is_missing(movies, tmp_path):
    out = tmp_path / "OUT"
    assert average(out, movies) == 0
    before = stamps(out)
    assert cli.main(["average", str(out)]) == 0 and stamps(out) == before            # nothing: the parameters are remembered
    (out / "micrographs" / "b_noDW.mrc").unlink()
    write_movie(tmp_path, "c", np.random.default_rng(9).poisson(4.0, size=SHAPE), SHIFT)
    assert average(out, movies) == 0
    changed = {name for name, stamp in stamps(out).items() if before[name] != stamp}
    assert changed == {"b.mrc", "b_noDW.mrc", "c.mrc", "c_noDW.mrc"}
    assert average(out, movies, "--first-frame", "2") == 0
    assert all(before[name] != stamp for name, stamp in stamps(out).items())


def measured_weights(path, groups=1):
    """Weights that leave out frame 1 (of the first group) or frame 2 (of the second)."""
    table = np.ones((groups, 5, 2))
    for group in range(groups):
        table[group, group] = 0
    zero = np.zeros((groups, 5))
    save_weights(path, DoseWeights(table, np.array([0.0, 1.0]), DOSE * (np.arange(5) + 0.5), zero, zero, zero, zero, "sum", "test"))
    return path


def test_measured_weights_of_each_optics_group(movies, tmp_path):
    write_movie(tmp_path, "b", np.random.default_rng(0).poisson(4.0, size=SHAPE), SHIFT)           # b is a, in the second group
    one, two = (measured_weights(tmp_path / ("w%d.npz" % n), n) for n in (1, 2))
    assert average(tmp_path / "one", movies, "--dose-weights", str(one)) == average(tmp_path / "two", movies, "--dose-weights", str(two)) == 0
    a, b = (image(tmp_path / "two" / "micrographs" / (n + ".mrc"))[0] for n in "ab")
    assert np.array_equal(a, image(tmp_path / "one" / "micrographs" / "a.mrc")[0]) and np.abs(a - b).max() > 0.5
    assert np.array_equal(image(tmp_path / "one" / "micrographs" / "b.mrc")[0], a)


def test_weights_of_other_groups_are_refused(movies, tmp_path, capsys):
    assert average(tmp_path / "OUT", movies, "--dose-weights", str(measured_weights(tmp_path / "w.npz", 3))) == cli.EXIT_INPUT
    assert "3 optics groups, the movies 2" in capsys.readouterr().err


def test_changed_weights_are_noticed_and_relions_are_read(movies, tmp_path):
    out = tmp_path / "OUT"
    write_bfactors_star(tmp_path / "bfactors.star", np.linspace(0, 200, 5), np.ones(5))
    assert average(out, movies, "--dose-weights", str(tmp_path / "bfactors.star")) == 0
    first = image(out / "micrographs" / "a.mrc")[0]
    write_bfactors_star(tmp_path / "bfactors.star", np.linspace(0, 900, 5), np.ones(5))
    assert average(out, movies, "--dose-weights", str(tmp_path / "bfactors.star")) == 0
    assert np.abs(image(out / "micrographs" / "a.mrc")[0] - first).max() > 0.05


def test_weights_by_frame_are_for_the_frames_that_are_averaged(movies, tmp_path, capsys):
    """Three of five frames: the file has a row for each of them, and their doses are those of frames 3 to 5."""
    file, out = str(tmp_path / "bfactors.star"), tmp_path / "OUT"
    catalogue = MovieCatalogue(movies)
    write_bfactors_star(file, np.linspace(0, 200, 3), np.ones(3))
    build = lambda **frames: AverageSpec.build({"inputs": dict({"movies": str(movies)}, **frames), "dose": {"weights_file": file}})
    np.testing.assert_allclose(given_weights(catalogue, build(first_frame=3)).dose_e_per_A2, DOSE * (np.arange(2, 5) + 0.5))
    assert average(out, movies, "--first-frame", "3", "--dose-weights", file) == 0
    assert average(out, movies, "--dose-weights", file) == cli.EXIT_INPUT
    assert "3 frames" in capsys.readouterr().err
    write_movie(tmp_path, "a", np.ones((9, 40, 48)), np.zeros((9, 2)))         # another kind, first in the list
    np.testing.assert_allclose(given_weights(MovieCatalogue(movies), build(first_frame=3)).dose_e_per_A2, DOSE * (np.arange(2, 5) + 0.5))
    with pytest.raises(InputError, match="no movie can be read.*frames 9 to 5"):
        given_weights(catalogue, build(first_frame=9))


def test_a_marker_of_an_average_does_not_outlive_the_first_image_that_is_replaced(movies, tmp_path, monkeypatch):
    out = tmp_path / "OUT"
    assert average(out, movies) == 0
    monkeypatch.setattr(average_movie, "write_mrc", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        average_movie._average(SimpleNamespace(movie=MovieCatalogue(movies).get(0), group=0, name="a"), SimpleNamespace(
            layout=AverageLayout(out), run=None, device="cpu", weights=None, spec=AverageSpec.build({"inputs": {"movies": str(movies)}})),
            load_movie(MovieCatalogue(movies).get(0), AverageSpec.build({"inputs": {"movies": str(movies)}}).inputs))
    assert not AverageLayout(out).done(MovieCatalogue(movies).get(0).key, "average").exists()


@pytest.mark.parametrize("damage", [
    {"kinds": None}, {"kinds": []}, {"kinds": ["else"]}, {"kinds": [[]]}, {"pixel_angstrom": "1"}, {"pixel_angstrom": None}, {"size_yx": 3}, {"size_yx": [1, None]},
    {"fingerprint": 3}])
def test_a_marker_of_an_average_that_makes_no_sense_is_none(movies, tmp_path, damage):
    out = tmp_path / "OUT"
    assert average(out, movies) == 0
    marker, before = AverageLayout(out).done(MovieCatalogue(movies).get(1).key, "average"), stamps(out)
    marker.write_text(json.dumps(dict(json.loads(marker.read_text()), **damage)))
    assert average(out, movies) == 0
    assert {name for name, stamp in stamps(out).items() if before[name] != stamp} == {"b.mrc", "b_noDW.mrc"}
    whole = json.loads(marker.read_text())
    marker.write_text(json.dumps({name: value for name, value in whole.items() if name != "pixel_angstrom"}))
    assert average(out, movies) == 0 and json.loads(marker.read_text()) == whole


def test_a_subset_of_movies_takes_the_weights_of_its_own_group(movies, tmp_path):
    weights = measured_weights(tmp_path / "w.npz", 2)
    assert average(tmp_path / "all", movies, "--dose-weights", str(weights)) == 0
    table, rows = (read_tables(movies)[name] for name in ("optics", "micrographs"))
    write_tables(movies, [table, rows.rows([1])])               # the one of the second group; the table still has both
    assert average(tmp_path / "some", movies, "--dose-weights", str(weights)) == 0
    one, same = (image(tmp_path / folder / "micrographs" / "b.mrc")[0] for folder in ("all", "some"))
    assert np.array_equal(one, same)


def test_frames_that_hang_are_given_up_in_averaging_too(movies, monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(average_movie, "load_movie", lambda *args, **kwargs: given.update(kwargs))
    spec = AverageSpec.build({"inputs": {"movies": str(movies)}, "compute": {"device": "cpu", "read_timeout_seconds": 77}})
    place = average_movie.AveragePlace(spec, AverageLayout(tmp_path), "cpu", 1, None)
    place.load(SimpleNamespace(movie=MovieCatalogue(movies).get(0)))
    assert given["frame_timeout"] == 77


@pytest.mark.parametrize("broken", [False, True])
def test_a_gpu_that_does_no_more_work_ends_the_run_and_fails_no_movie(movies, monkeypatch, tmp_path, broken):
    def lost(*args):
        raise RuntimeError("CUDA error: unspecified launch failure\nmore")

    monkeypatch.setattr(average_movie, "average_movie", lost)
    monkeypatch.setattr(torch.cuda, "synchronize", lost if broken else lambda device: None)
    spec = AverageSpec.build({"inputs": {"movies": str(movies)}})
    place, catalogue = average_movie.AveragePlace(spec, AverageLayout(tmp_path), "cuda:0", 1, None), MovieCatalogue(movies)
    task = average_tasks(catalogue, spec, None)[0]
    if not broken:
        assert "unexpected RuntimeError: CUDA error" in average_movie.average_task(task, place, lambda: "stack").stages["average"]
        return
    with pytest.raises(DeviceLost, match="cuda:0 does no more work .CUDA error: unspecified launch failure.: see nvidia-smi"):
        average_movie.average_task(task, place, lambda: "stack")


def test_workers_of_one_machine_share_its_memory(movies, monkeypatch, tmp_path):
    monkeypatch.setattr(budget, "free_host_bytes", lambda: 8 * budget.GIB)
    spec = AverageSpec.build({"inputs": {"movies": str(movies)}, "compute": {"device": "cpu"}})
    place = lambda processes: average_movie.remote_place(spec, tmp_path, "run", None, processes, "cpu", 1)
    assert (place(1).budget.host, place(4).budget.host) == (4 * budget.GIB, budget.GIB)


def test_same_names_in_two_folders_stay_apart(movies, tmp_path):
    text = movies.read_text().replace("MotionCorr/b.mrc", "Other/a.mrc")
    movies.write_text(text)
    assert average(tmp_path / "OUT", movies) == 0
    names = [m.name.split("/")[-1] for m in read_corrected_micrographs(tmp_path / "OUT" / "corrected_micrographs.star")[0]]
    assert names == ["MotionCorr_a.mrc", "Other_a.mrc", "c.mrc"]


@pytest.mark.parametrize("micrographs, names", [
    (["m/x_y.mrc", "x/y.mrc", "b/y.mrc"], ["m_x_y", "x_y", "b_y"]),         # the key of the second is the base name of the first
    (["m/y.mrc", "z_noDW.mrc", "n/y_noDW.mrc"], ["m_y", "z_noDW", "n_y_noDW"]),
    (["m/y.mrc", "m/z.mrc"], ["y", "z"])])
def test_no_two_images_share_a_file(movies, tmp_path, micrographs, names):
    text = movies.read_text()
    for old, new in zip("abc", micrographs):
        text = text.replace("MotionCorr/%s.mrc" % old, new)
    movies.write_text(text)
    assert average(tmp_path / "OUT", movies) == 0
    listed = [m.name.split("/")[-1] for m in read_corrected_micrographs(tmp_path / "OUT" / "corrected_micrographs.star")[0]]
    assert listed[:len(names)] == [name + ".mrc" for name in names]
    assert len(list((tmp_path / "OUT" / "micrographs").glob("*.mrc"))) == 6


def test_images_that_would_share_a_file_whatever_they_are_called(movies, tmp_path, capsys):
    movies.write_text(movies.read_text().replace("MotionCorr/a.mrc", "m/y.mrc").replace("MotionCorr/b.mrc", "m/y_noDW.mrc"))
    assert average(tmp_path / "OUT", movies) == cli.EXIT_INPUT
    assert "micrographs m/y.mrc and m/y_noDW.mrc would share the file m_y_noDW.mrc: rename one" in capsys.readouterr().err


def test_options_and_their_errors(tmp_path):
    with pytest.raises(InputError, match="--movies, or --job"):
        average_spec({})
    with pytest.raises(InputError, match="--binning: Input should be greater than or equal to 1"):
        average_spec({"inputs.movies": "m.star", "output.binning": 0.5})
    (tmp_path / "average.json").write_text(json.dumps({"inputs": {"movies": "m.star"}, "output": {"bining": 2}}))
    assert cli.main(["average", str(tmp_path)]) == cli.EXIT_INPUT


def test_a_second_run_in_the_same_folder_is_kept_out(movies, tmp_path, capsys):
    from refmotion_plugin.contract.averages import AverageLayout
    from refmotion_plugin.engine.run.lock import job_lock
    with job_lock(AverageLayout(tmp_path / "OUT")):
        assert average(tmp_path / "OUT", movies) == cli.EXIT_INPUT
    assert "another run" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("relion_image_handler") is None, reason="RELION is not installed")
def test_relion_reads_images_and_list(movies, tmp_path):
    out = tmp_path / "OUT"
    assert average(out, movies, "--binning", "1.5", "--even-odd", "weighted") == 0
    data, pixel, _ = image(out / "micrographs" / "a.mrc")
    text = subprocess.run(["relion_image_handler", "--i", str(out / "micrographs" / "a.mrc"), "--stats"], capture_output=True, text=True,
                          check=True).stdout
    assert "%d x %d x 1 x 1" % data.shape[::-1] in text
    assert float(re.search(r"avg= (\S+)", text).group(1)) == pytest.approx(data.mean(), rel=1e-4)
    assert float(re.search(r"stddev= (\S+)", text).group(1)) == pytest.approx(data.std(), rel=1e-3)
    assert float(re.search(r"angpix = (\S+)", text).group(1)) == pytest.approx(pixel, rel=1e-4)
    subprocess.run(["relion_star_handler", "--i", str(out / "corrected_micrographs.star"), "--o", str(tmp_path / "kept.star"), "--select",
                    "rlnOpticsGroup", "--minval", "2", "--maxval", "2"], capture_output=True, check=True)
    assert [m.name for m in read_corrected_micrographs(tmp_path / "kept.star")[0]] == [str(out / "micrographs" / "b.mrc")]
