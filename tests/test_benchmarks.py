"""The comparison with RELION: its measuring, scoring and tables; and, where RELION is installed, one run of both programs."""
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from refmotion_plugin.contract.star import write_tracks_star
from refmotion_plugin.engine.simulate import SimulationSpec, simulate
from refmotion_plugin.engine.simulate.score import true_amplitude

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import averages  # noqa: E402
import beside_relion_protocol as beside  # noqa: E402
import demo  # noqa: E402
import stages  # noqa: E402
import uncertainty  # noqa: E402
from comparison import compare, cost, engine, extras, floor, maps, measure, project, relion, report, scoring  # noqa: E402

TINY = SimulationSpec(movies=2, particles=6, frames=7, size_yx=(320, 320), box=96, pixel_angstrom=1.6, dose_per_frame=2.0,
                      contrast_scale=1.5, seed=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny simulated data set."""
    folder = tmp_path_factory.mktemp("data")
    simulate(folder, TINY)
    return folder


@pytest.fixture
def work(data, tmp_path):
    """A project on the tiny data set."""
    return project.Project.make(tmp_path / "project", data)


def true_tracks(work, movie):
    with np.load(work.truth / f"{movie}.npz") as truth:
        return truth["displacement_yx_angstrom"]


def test_true_tracks_score_zero_and_turned_ones_do_not(work):
    for factor, folder in ((1.0, "right"), (-1.0, "turned")):
        for movie in work.movies:
            path = work.folder / folder / "Movies" / f"{movie}_tracks.star"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tracks_star(path, factor * true_tracks(work, movie))
    right, turned = (scoring.score_tracks(work, name, work.movies) for name in ("right", "turned"))
    rigid = scoring.score_rigid(work, work.movies)
    assert right["all"] < 1e-5 and right["early"] < 1e-5
    assert turned["all"] > 2 * rigid["all"] > 0.2


def test_a_constant_per_particle_is_no_error_and_no_motion(work):
    movie = work.movies[0]
    path = work.folder / "moved" / f"{movie}_tracks.star"
    path.parent.mkdir()
    write_tracks_star(path, true_tracks(work, movie) + np.arange(6)[:, None, None])
    assert scoring.score_tracks(work, "moved", [movie])["all"] < 1e-5
    assert extras.motion_rms_angstrom([np.full((4, 5, 2), 3.0)]) == 0.0


def test_missing_tracks_are_named(work):
    with pytest.raises(FileNotFoundError, match="movie_001_tracks.star"):
        scoring.find_tracks(work.folder / "truth", "movie_001")


def test_blur_inside_frames_lowers_the_true_amplitude_of_moving_frames(work):
    k, damage, amplitude = scoring.true_tables(work)
    fine = np.argmin(abs(k - 1 / 5))
    ratio = amplitude[:, fine] / damage[:, fine]
    assert ratio[0] < 0.8 and ratio[-1] > ratio[0] and (amplitude <= damage + 1e-12).all()


def test_true_amplitude_is_sinc_of_the_motion_inside_a_frame(tmp_path):
    k, delta = np.array([0.0, 0.1, 0.2]), 3.0
    np.savez(tmp_path / "damage.npz", amplitude=np.ones((1, 3)), frequency_per_angstrom=k)
    end = np.array([[[0.0, delta]]])
    np.savez(tmp_path / "movie_001.npz", displacement_start_yx_angstrom=np.zeros((1, 1, 2)), displacement_end_yx_angstrom=end)
    along = np.cos(2 * np.pi * (np.arange(4000) + 0.5) / 4000)
    expected = [np.sinc(f * delta * along).mean() for f in k]
    np.testing.assert_allclose(true_amplitude(tmp_path, directions=64)[0], expected, atol=1e-6)


def test_true_weights_keep_all_signal_and_even_ones_do_not(work):
    truth = scoring.true_tables(work)[2]
    scores = scoring.score_weights(work, {"truth": truth} | scoring.plain_weights(work))
    assert scores["truth"]["damage and blur"] == pytest.approx({"correlation": 1.0, "snr_kept": 1.0})
    assert scores["even weights"]["damage and blur"]["snr_kept"] < 0.97


def test_the_floor_times_every_part(work):
    timed = floor.project_floor(work, threads=1)
    assert timed["movies"] == 2 and all(seconds > 0 for seconds in timed["parts_s"].values())
    assert sum(timed["parts_s"].values()) <= timed["wall_s"]


def test_a_second_transform_raises_the_floor(work):
    timed = floor.project_floor(work, threads=1)
    assert floor.second_pass(timed["parts_cpu_s"]) == timed["parts_cpu_s"]["cut"] + timed["parts_cpu_s"]["transform"] > 0


def test_movies_take_from_their_list_to_the_last_polished_one(tmp_path):
    events = [("movies", 10.0), ("align", 12.0), ("polish", 17.5), ("polish", 16.0), ("finished", 30.0)]
    (tmp_path / "status.jsonl").write_text("".join(json.dumps({"event": event, "time": time}) + "\n" for event, time in events))
    assert engine.movies_wall_s(tmp_path) == 7.5


class FakeCost(cost.Cost):
    """Programs that cost a fixed time and a time per movie, on a machine that is slower in some turns."""

    SLOWER = {1: 1.0, 2: 3.0, 3: 2.0}

    def relion(self, case, threads, movies, turn=1):
        slower = self.SLOWER[turn]
        return {"cpu_s": slower * (20.0 + 15.0 * movies), "wall_s": slower * (21.0 + 15.0 * movies), "peak_GiB": 3.0 + 0.1 * turn}

    def ours(self, case, threads, movies, last_frame=-1, turn=1):
        frames, slower = self.frames if last_frame == -1 else last_frame, self.SLOWER[turn]
        return {"cpu_s": slower * (5.0 + 0.1 * frames * movies), "wall_s": slower * (6.0 + 2.0 * movies), "peak_GiB": 0.62}

    def floor(self, case, threads, turn=1):
        parts = {"cut": 1.0 * self.SLOWER[turn], "transform": 3.0 * self.SLOWER[turn]}
        return {"cpu_s": 8.0 * self.SLOWER[turn], "wall_s": 8.0, "movies": 8, "parts_cpu_s": parts}


def test_turns_on_a_machine_of_changing_speed_give_the_same_ratios(tmp_path):
    measured = FakeCost(folder=tmp_path, journal=None, threads=(1,), frames=20, counts=(4, 8), relion_counts=(1, 2), cases=(cost.PLAIN,), turns=3)
    row, = measured.rows()
    assert row["relion cpu_s"] == pytest.approx(30) and row["turns"] == 3          # the median, as on a machine twice as slow
    assert [row[name] for name, _, _ in cost.RATIOS] == pytest.approx([7.5, 2.0, 2 / 1.5, 7.5])
    assert row["relion peak_GiB"] == pytest.approx(3.3)                            # the largest


def test_what_a_further_movie_costs_is_the_slope(tmp_path):
    measured = FakeCost(folder=tmp_path, journal=None, threads=(1, 2), frames=20, counts=(4, 8), relion_counts=(1, 2),
                        cases=(cost.PLAIN, "50 particles", "box 400"))
    rows, growth = measured.rows(), measured.growth()
    assert len(rows) == 6 and rows[0]["case"] == cost.PLAIN
    expected = {"relion cpu_s": 15, "relion before cpu_s": 20, "ours cpu_s": 2, "ours before cpu_s": 5, "floor cpu_s": 1, "floor of two cpu_s": 1.5}
    assert {name: rows[0][name] for name in expected} == pytest.approx(expected)
    line = cost.movie_table(rows).splitlines()[2].split("|")
    assert [float(x) for x in line[7:12]] == pytest.approx([7.5, 2.0, 2 / 1.5, 7.5, 0.2], abs=1e-3)
    assert float(cost.job_table(rows).splitlines()[2].split("|")[7]) == pytest.approx((20 + 15 * 1000) / (5 + 2 * 1000), abs=1e-3)
    assert growth["movies"] == [[4, 13.0], [6, 17.0], [8, 21.0]]
    assert "5.0 + 2.000 × movies" in cost.growth_table(growth["movies"], "movies")
    cost.plot(tmp_path / "cost.png", rows, growth)
    assert (tmp_path / "cost.png").stat().st_size > 10000


@pytest.mark.parametrize("less, more, each, before", [(4.0, 6.0, 0.5, 2.0), (4.0, 8.0, 1.0, 0.0), (4.0, 12.0, 1.5, 0.0)])
def test_no_job_costs_less_than_nothing_before_its_first_movie(less, more, each, before):
    assert cost.slope(4, less, 8, more) == pytest.approx((each, before))


def test_costs_that_are_bounded_are_those_of_the_tables(tmp_path):
    """RELION's runs begin below zero, by a machine that was slower in the larger one: only what it took in all counts."""
    class Slowed(FakeCost):
        def relion(self, case, threads, movies, turn=1):
            return {**super().relion(case, threads, movies), "cpu_s": {1: 10.0, 2: 50.0}[movies]}

    row, = Slowed(folder=tmp_path, journal=None, threads=(1,), frames=20, counts=(4, 8), relion_counts=(1, 2), cases=(cost.PLAIN,)).rows()
    assert row["relion cpu_s"] == 25 and row["relion before cpu_s"] == 0 and row["RELION / ours"] == pytest.approx(12.5)
    assert float(cost.job_table([row]).splitlines()[2].split("|")[7]) == pytest.approx(25000 / 2005, abs=1e-3)
    assert "no job costs less than nothing" in cost.movie_table([row])


def test_standard_weights_are_those_of_the_exposure_curve(work):
    from refmotion_plugin.contract.store import load_weights
    weights = load_weights(work.folder / cost.standard_weights(work, 5))
    k, truth, _ = scoring.true_tables(work)
    assert weights.weight.shape[1] == 5
    shape = scoring.resample_weights(weights.weight[0], weights.frequency_per_angstrom, k)
    np.testing.assert_allclose(shape[:, 10] / shape[0, 10], truth[:5, 10] / truth[0, 10], rtol=0.01)


def test_particle_lists_of_some_movies(work):
    from refmotion_plugin.contract.star import read_particles
    assert work.some_movies(1) == ["movie_001"] and work.some_movies(9) == work.movies
    names = read_particles(work.folder / work.particles(["movie_002"])).table.micrograph
    assert len(names) == 6 and set(names) == {"MotionCorr/movie_002.mrc"}


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="truth/spec.json"):
        project.Project.make(tmp_path / "project", tmp_path)


def test_the_journal_keeps_finished_steps_and_redoes_named_ones(tmp_path):
    path = tmp_path / "steps.json"
    first = project.Journal(path)
    assert [first.step(n, lambda: v) for n, v in (("ours 1", 1), ("grid 1", 2))] == [1, 2]
    again = project.Journal(path, redo=("ours",))
    assert [again.step(n, lambda: 9) for n in ("ours 1", "grid 1")] == [9, 2]


def test_a_journal_of_other_data_is_refused(work, tmp_path):
    path = tmp_path / "steps.json"
    project.Journal(path).belongs_to(work)
    project.Journal(path).belongs_to(work)
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(SystemExit, match="another data set"):
        project.Journal(path).belongs_to(work)


def test_memory_and_time_of_a_child_count(tmp_path):
    hungry = "x = bytearray(150 << 20); x[::4096] = b'1' * len(x[::4096]); sum(range(4_000_000))"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hungry!r}], check=True)"
    usage = measure.run_measured([sys.executable, "-c", code], tmp_path, tmp_path / "log")
    assert usage.peak_GiB > 0.14 and 0 < usage.cpu_s < 1.5 * usage.wall_s + 1


def test_memory_of_whoever_measures_does_not_count(tmp_path):
    mine = bytearray(300 << 20)
    mine[::4096] = b"1" * len(mine[::4096])
    assert measure.run_measured([sys.executable, "-c", "pass"], tmp_path, tmp_path / "log").peak_GiB < 0.1
    assert len(mine) == 300 << 20


def test_a_failed_program_is_named_with_its_last_words(tmp_path):
    with pytest.raises(measure.ProgramFailed, match="(?s)code 3.*no such map"):
        measure.run_measured([sys.executable, "-c", "print('no such map'); raise SystemExit(3)"], tmp_path, tmp_path / "log")


def test_a_program_that_fails_says_what_it_cost(tmp_path):
    code = "import time\nwhile time.process_time() < 0.3: pass\nraise SystemExit(3)"
    with pytest.raises(measure.ProgramFailed) as failure:
        measure.run_measured([sys.executable, "-c", code], tmp_path, tmp_path / "log")
    assert failure.value.code == 3 and 0.3 <= failure.value.usage.cpu_s < 3


def test_shell_correlation_and_its_crossing():
    rng = np.random.default_rng(0)
    volume, other = rng.normal(size=(2, 32, 32, 32))
    np.testing.assert_allclose(maps.shell_correlation(volume, volume), 1, atol=1e-5)
    assert abs(maps.shell_correlation(volume, other)[5:]).max() < 0.2
    assert maps.crossing_angstrom(np.array([1.0, 0.9, 0.443, 0.043]), 30.0, 0.143) == pytest.approx(30 / 2.75)
    noisy = np.array([1, 1, 0.9, 0.8, 0.1, 0.6, 0.5, 0.3, 0.1, 0.0, 0.0, 0.0])
    assert maps.crossing_angstrom(noisy, 30.0) > 30 / 4 and 30 / 9 < maps.smoothed_crossing_angstrom(noisy, 30.0) < 30 / 7
    low = maps.filter_by_shell(volume, (np.arange(17) < 6).astype(float))
    assert maps.shell_correlation(low, volume)[:6].min() > 0.999
    assert low.std() < 0.2 * volume.std()
    assert maps.mean_over_band(np.linspace(1, 0, 11), 10.0, (5.0, 2.5)) == pytest.approx(0.7)


def test_tables_and_files_say_what_was_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "against_relion.py"), "compare", str(tmp_path / "work")])
    table = compare.demand_table([("speed", 3.2, "≥ 3", 3.0, True), ("error", 1.1, "≤ 1", 1.0, False)])
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].endswith("| yes |") and lines[3].endswith("| NO  |")
    path = report.write_results(tmp_path, "case", "Title", [("Demands", table)], {"value": 1})
    where = json.loads(path.with_suffix(".json").read_text())["where"]
    assert where["cpu"] in path.read_text() and where["command"] == "python benchmarks/against_relion.py compare work"
    assert report.markdown_table(["a"], [[None], [1234.5], [0.12345]]).splitlines()[2:] == ["| –      |", "| 1234.5 |", "| 0.123  |"]


def test_the_fsc_file_stays_zero_beyond_the_first_gap(tmp_path):
    relion.write_fsc_star(tmp_path / "fsc.star", np.array([1.0, 0.9, 0.005, 0.3]))
    from refmotion_plugin.contract.startable import read_table
    assert read_table(tmp_path / "fsc.star", "fsc").numbers("rlnGoldStandardFsc").tolist() == [0.9999, 0.9, 0.0, 0.0]


@pytest.mark.skipif(bool(relion.missing_programs()), reason="RELION's programs are not on the PATH, so no run of both is compared.")
def test_both_programs_run_and_beat_rigid_motion(tmp_path):
    spec = replace(TINY, movies=2, particles=30, frames=12, size_yx=(640, 640), dose_per_frame=1.5)
    simulate(tmp_path / "data", spec)
    comparison = compare.Comparison(project=project.Project.make(tmp_path / "project", tmp_path / "data"), threads=1, halves="simulated",
                                    journal=project.Journal(tmp_path / "steps.json"), sigmas=(1.5, 10000, 4), say=lambda text: None)
    sections = compare.everything(comparison, lambda text: None, ("speed", "tracks", "weights"))
    tracks = comparison.tracks()
    assert max(tracks["RELION"]["all"], tracks["ours"]["all"]) < 0.8 * tracks["rigid shifts only"]["all"]
    assert [heading for heading, _ in sections] == ["Time and memory", "Trajectories", "Dose weights"]
    stars = engine_oracle(comparison)
    assert stars == "oracle/tracks/particles.star" and (comparison.project.folder / stars).exists()


def engine_oracle(comparison):
    from comparison.engine import polish_along_truth
    return polish_along_truth(comparison.project, comparison.folder("ours"), "oracle/tracks")


def test_without_relions_plugin_nothing_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(beside.importlib.util, "find_spec", lambda name: None)
    assert beside.main([str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith("nothing was done: the RELION plugin of Scipion is not installed")
    assert not (tmp_path / "out").exists()


def test_images_are_compared_band_by_band():
    """Two stacks that share what is coarser than 10 A only."""
    rng, size, pixel = np.random.default_rng(5), 64, 1.5
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) / pixel
    common, one, other = (np.fft.rfft2(rng.normal(size=(4, size, size))) for _ in range(3))
    first, second = (np.fft.irfft2(np.where(k <= 0.1, common, own), s=(size, size)) for own in (one, other))
    found = beside.image_correlation(first, 3.0 * second, pixel)
    assert found[40.0, 10.0] == pytest.approx(np.ones(4), abs=1e-6)
    assert np.abs(found[10.0, 5.0]).max() < 0.2


def left_first_out(work, movie):
    """Trajectories of all but the first particle of a movie, the true ones."""
    row = np.arange(1, TINY.particles) + work.movies.index(movie) * TINY.particles
    true = true_tracks(work, movie)[1:]
    return SimpleNamespace(micrograph=f"MotionCorr/{movie}.mrc", row=row, displacement_yx_angstrom=true, initial_yx_angstrom=0 * true,
                           position_yx_angstrom=np.zeros((len(row), 2)), deviation_sd_angstrom=np.full(true.shape[:2], 0.1))


def test_standard_deviations_are_held_against_the_truth_of_the_same_particle(work, monkeypatch):
    results = SimpleNamespace(aligned_keys=lambda: work.movies, trajectories=lambda movie: left_first_out(work, movie))
    monkeypatch.setattr(uncertainty, "JobResults", lambda job: results)
    assert all(row[1] == 1.0 and row[3] < 1e-6 for row in uncertainty.of_job("job", work.truth))
    every = [true_tracks(work, movie) for movie in work.movies]
    assert all(row[3] < 1e-6 for row in uncertainty.coverage([left_first_out(work, movie) for movie in work.movies], every))


def test_the_demonstration_compares_the_same_particles(data, work):
    """Polished images that are the true projections correlate by one, although the first particle of each movie was left out."""
    from refmotion_plugin.engine.simulate import true_projections
    images = {movie: true_projections(work.truth, movie, TINY.box, TINY.pixel_angstrom)[1:] for movie in work.movies}
    for movie in work.movies:
        (work.folder / movie).mkdir()
        engine._write_stack(work.folder / movie / "polished.mrcs", images[movie], TINY.pixel_angstrom)
    polished = [(str(work.folder / movie / "polished.mrcs"), i) for movie in work.movies for i in range(TINY.particles - 1)]
    score = object.__new__(demo.Score)
    score.spec, score.paths, score.names = TINY, SimpleNamespace(truth=work.truth, folder=data), work.movies
    score.results = SimpleNamespace(polished_images=lambda: polished, trajectories=lambda movie: left_first_out(work, movie))
    score._trajectories()
    score._rings()
    assert score.error_after.all_frames < 1e-5 < score.error_before.all_frames
    np.testing.assert_allclose(score.ring_after[1:20], 1, atol=1e-3)
    assert 0.05 < score.ring_before[3:15].mean() < 0.99
    polished.pop()
    with pytest.raises(SystemExit, match="1 of 5 particles of movie_002 have no polished image"):
        score._rings()


@pytest.mark.parametrize("threads, alone", [("1", True), ("2", False)])
def test_the_parts_of_a_run_are_clocked_beside_other_files(data, tmp_path, monkeypatch, capsys, threads, alone):
    """Where other threads decode and write, only the main one is looked at; the run's exit code comes through."""
    from refmotion_plugin.engine import cli
    clocks = []
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages.Clocks, "install", lambda self: clocks.append(self))

    def run(arguments):
        assert arguments[1] == str(tmp_path / "out" / "job") and not (tmp_path / "out" / "job").exists()
        work = clocks[0].around("decode", lambda: None)
        other = threading.Thread(target=work)
        other.start()
        other.join()
        return 3

    monkeypatch.setattr(cli, "main", run)
    (tmp_path / "out" / "job").mkdir(parents=True)
    (tmp_path / "out" / "mine.txt").touch()
    assert stages.main([str(data), "out", "--threads", threads]) == 3
    assert (tmp_path / "out" / "mine.txt").exists() and ("decode" in capsys.readouterr().out) is alone


def test_kills_are_shared_out_and_differences_are_seen():
    pytest.importorskip("distributed", reason="a scheduler is started apart")
    from reliability import kills
    for times in (3, 10, 100):
        assert sum(kills.shares(times).values()) == times and min(kills.shares(times).values()) >= 1
        assert kills.shares(times, ("scheduler",)) == {"scheduler": times}
    assert kills._differences({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b differs", "c too many"]
    assert kills._differences({"a": "1"}, {}) == ["a missing"]


def test_the_model_of_a_machine_scales_with_its_parts():
    from reliability import capacity
    movie, measured = capacity.DETECTORS[1], (6e6, 0.05)
    before = capacity.seconds_per_movie(movie, measured, capacity.Assumptions())
    after = capacity.seconds_per_movie(movie, measured, capacity.Assumptions(gpus=16, cores=128, file_system_gb_s=10.0))
    assert all(after[part] == pytest.approx(0.5 * before[part]) for part in before)
    assert before["file system"] == pytest.approx(6e6 * 40 * 1.1 / 5e9)
    eer = capacity.seconds_per_movie(capacity.DETECTORS[3], measured, capacity.Assumptions())
    assert eer["file system"] == pytest.approx(30 * before["file system"])         # all detector frames are read


def test_bounds_of_averages_can_be_missed():
    rows = [["m", "rigid", "weighted", "0.99950", "1.0000", 1.0], ["m", "local, 3 x 3 patches", "weighted", "0.92000", "0.9950", 1.7]]
    signal = [["RELION's, local, 3 x 3 patches", "ours", 0.94, 0.83, 0.72], ["RELION's, local, 3 x 3 patches", "RELION", 0.88, 0.69, 0.54]]
    assert averages.missed(rows, signal) == []
    rows[0][3], rows[1][4] = "0.99850", "0.9890"
    signal[0][3] = 0.60
    assert len(averages.missed(rows, signal)) == 3


@pytest.mark.parametrize("found, best, ratio", [(0.306, 0.304, 0.306 / 0.304), (1e-6, 3e-8, 1.0), (0.002, 1e-8, 2.0)])
def test_no_error_against_none_is_no_excess(found, best, ratio):
    from searching.grid import excess
    assert excess(found, best) == pytest.approx(ratio)
