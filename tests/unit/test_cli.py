"""The command line: every option reaches the spec, faults are one sentence, exit codes mean what the help says."""
import io
import json
import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import typing
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.contract.layout import JobLayout, write_json
from refmotion_plugin.engine import cli
from refmotion_plugin.engine.cli import simulation, talk
from refmotion_plugin.engine.options import average_spec, job_spec, option_name, spec_fields
from refmotion_plugin.engine.run import job as job_module
from refmotion_plugin.engine.run.lock import job_lock
from refmotion_plugin.engine.run.status import Progress

from tests.unit.job_stand_ins import FakeStages, write_project

NEEDED = ["--movies", "m.star", "--particles", "p.star", "--half1", "a.mrc", "--half2", "b.mrc"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A tiny project, the stages replaced by stand-ins; gives (spec, options, fake)."""
    spec, fake = write_project(tmp_path / "project"), FakeStages()
    monkeypatch.setattr(job_module, "stage_recipes", fake.recipes)
    monkeypatch.chdir(tmp_path)
    part = spec.references[0]
    options = ["--movies", spec.inputs.movies, "--particles", part.particles, "--half1", part.half1, "--half2", part.half2,
               "--device", "cpu", "--threads", "1"]
    return spec, options, fake


def parsed(*options, base=None):
    values = vars(cli.command_parser(["run"]).parse_args(["run", "OUT", *options]))
    return job_spec({k: v for k, v in values.items() if k not in ("command", "out", "job", "stage")}, base)


def test_defaults_are_the_specs_own():
    spec = parsed(*NEEDED)
    assert spec == JobSpec.build({"inputs": {"movies": "m.star"}, "references": [
        {"particles": "p.star", "half1": "a.mrc", "half2": "b.mrc"}]})


def test_all_agreed_names():
    spec = parsed(*NEEDED, "--mask", "k.mrc", "--reference", "particles=P2.star,half1=x,half2=y,mask=z", "--spatial-strength", "0.5",
                  "--correlation-distance", "1000", "--acceleration-strength", "0.1", "--dose-weights", "w.npz", "--stop-after",
                  "dose-weights", "--device", "cuda:0,cuda:1", "--threads", "3", "--box", "256", "--crop-box", "128", "--float16",
                  "--recenter", "--first-frame", "2", "--last-frame", "20", "--tracks-star", "--no-preflight", "--movie-flip-y", "no",
                  "--gain", "g.mrc", "--gain-rotation", "1", "--gain-flip", "2", "--memory", "4", "--seed", "7")
    assert [r.mask for r in spec.references] == ["k.mrc", "z"] and spec.references[1].particles == "P2.star"
    prior = spec.motion_prior
    assert (prior.velocity_sigma, prior.correlation_distance_angstrom, prior.acceleration_sigma) == (0.5, 1000, 0.1)
    assert (spec.dose.weights_file, spec.output.stop_after, spec.compute.device, spec.compute.threads) == (
        "w.npz", "dose-weights", "cuda:0,cuda:1", 3)
    out, inputs = spec.output, spec.inputs
    assert (out.box_px, out.crop_box_px, out.float16, out.recenter, out.tracks_star) == (256, 128, True, True, True)
    assert (inputs.first_frame, inputs.last_frame, inputs.preflight, inputs.movie_flip_y, inputs.gain) == (2, 20, False, False, "g.mrc")
    assert (inputs.gain_rotation, inputs.gain_flip, spec.compute.memory_gib, spec.seed) == (1, 2, 4.0, 7)
    assert parsed(*NEEDED, "--relion-sigmas", "1.5", "10000", "4").motion_prior.relion_sigmas == (1.5, 10000, 4)
    assert parsed(*NEEDED, "--hyperparameters", "h.json").motion_prior.hyperparameters_file == "h.json"


def test_every_field_has_an_option_of_its_own():
    names = [option_name(name) for _, name, _ in spec_fields()]
    assert len(names) == len(set(names)) and "--crop-box" in names and "--spatial-strength" in names


OTHER_VALUES = {"thoroughness": "fast", "normalisation": "peak", "stop_after": "hyperparameters", "fourier_fraction": 0.4, "max_prior_strength": 30.0,
                "gain_flip": 2, "gain_rotation": 3, "passes": 3, "movies_per_gpu": 4, "even_odd": "weighted", "device": "cpu", "symmetry": "I3", "crop_box_px": 16,
                "relion_sigmas": (1.0, 2.0, 3.0), "movie_flip_y": False}
TOGETHER = {"velocity_sigma", "correlation_distance_angstrom", "acceleration_sigma"}


def other_value(name, field):
    """A value that is valid and not the default."""
    if name in OTHER_VALUES or isinstance(field.get_default(), bool):
        return OTHER_VALUES.get(name, not field.get_default())
    kind = [k for k in (int, float, str) if k is field.annotation or k in typing.get_args(field.annotation)][0]
    return {int: 34, float: 12.5, str: "some.file"}[kind]


def typed(name, value):
    """An option as a user types it."""
    if isinstance(value, bool) and name != "movie_flip_y":
        return [option_name(name) if value else option_name(name).replace("--", "--no-", 1)]
    return [option_name(name), *(map(str, value) if isinstance(value, tuple) else ["no" if value is False else str(value)])]


@pytest.mark.parametrize("command, spec", [("run", JobSpec), ("average", AverageSpec)])
def test_every_option_reaches_its_field(command, spec):
    build = {"run": job_spec, "average": average_spec}[command]
    for section, name, field in spec_fields(spec):
        value, needed = other_value(name, field), NEEDED if command == "run" else NEEDED[:2]
        options = [part for other in (TOGETHER if name in TOGETHER else {name}) for part in typed(other, 12.5 if other in TOGETHER else value)]
        values = vars(cli.command_parser([command]).parse_args([command, "OUT", *needed, *options]))
        found = getattr(getattr(build({k: v for k, v in values.items() if k not in ("command", "out", "job", "stage")}), section), name)
        assert found == value and found != field.get_default(), name


def test_references_given_over_a_job_change_what_they_name():
    base = parsed(*NEEDED, "--mask", "k.mrc", "--reference", "particles=P2.star,half1=x,half2=y")
    over = lambda *options: [(r.particles, r.half1, r.mask) for r in parsed(*options, base=base).references]
    assert over() == [("p.star", "a.mrc", "k.mrc"), ("P2.star", "x", None)]
    assert over("--mask", "new.mrc") == [("p.star", "a.mrc", "new.mrc"), ("P2.star", "x", None)]
    assert over("--reference", "particles=P3.star,half1=c,half2=d") == [("p.star", "a.mrc", "k.mrc"), ("P3.star", "c", None)]
    assert over("--particles", "Q.star", "--half1", "e") == [("Q.star", "e", "k.mrc"), ("P2.star", "x", None)]


@pytest.mark.parametrize("options, part", [
    (NEEDED + ["--relion-sigmas", "0.5", "5000", "0"], "0.5, 5000 and 0: three positive numbers"),
    (NEEDED + ["--relion-sigmas", "0.5", "-5000", "2"], "three positive numbers"),
    (NEEDED + ["--relion-sigmas", "0.5", "nan", "2"], "--relion-sigmas.1: Input should be a finite number"),
    (NEEDED + ["--search-radius", "inf"], "--search-radius: Input should be a finite number"),
    (NEEDED + ["--cache", "inf"], "--cache: Input should be a finite number"),
    (NEEDED + ["--seed", "-1"], "seed: Input should be greater than or equal to 0"),
    (NEEDED + ["--spatial-strength", "1"], "only velocity_sigma given"),
    (NEEDED + ["--box", "255"], "must be even"),
    (NEEDED + ["--first-frame", "5", "--last-frame", "3"], "the last frame 3 comes before the first frame 5"),
    (NEEDED + ["--gain-rotation", "5"], "--gain-rotation: Input should be less than or equal to 3"),
    (NEEDED + ["--reference", "particles=P"], "half1"),
    (NEEDED + ["--reference", "P.star"], "particles=FILE,half1=FILE"),
    (NEEDED + ["--reference", "particles=P,half1=a,half2=b,msk=c"], "unknown key 'references.1.msk'"),
    (NEEDED[2:], "needs --movies"),
    (NEEDED[:2], "needs --movies, --particles"),
])
def test_wrong_options_are_sentences(options, part):
    with pytest.raises(InputError, match=part):
        parsed(*options)


@pytest.mark.parametrize("arguments, part", [
    (["run", "OUT", "--foo"], "unrecognized arguments: --foo"), (["run", "OUT", "--box", "big"], "invalid int value: 'big'"),
    (["run", "OUT", "--movie-flip-y", "up"], "neither yes nor no"), (["fly"], "invalid choice: 'fly'"), ([], "required"),
    (["run", "OUT", "--thread", "2"], "unrecognized arguments: --thread"),
])
def test_unknown_options_end_with_one_line(arguments, part, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    text = capsys.readouterr().err
    assert stop.value.code == 2 and part in text and text.count("\n") == 1


def test_a_run_and_what_it_says(project, capsys):
    _, options, _ = project
    assert cli.main(["run", "OUT", *options]) == 0
    out = capsys.readouterr().out
    assert "6 particles written: OUT/particles.star" in out and "report: OUT/report.html" in out
    assert "000001@OUT/movies/M_mic_0/polished.mrcs" in open("OUT/particles.star").read()
    assert "align 3/3 movies" in open("OUT/engine.log").read()
    assert cli.main(["status", "OUT"]) == 0
    out = capsys.readouterr().out
    assert "movies polished                3" in out and "failed" not in out.replace("movies failed                  0", "")
    assert cli.main(["report", "OUT"]) == 0
    assert os.path.exists("OUT/figures/motion.png")


def test_failed_movies_in_exit_code_summary_status_and_report(project, capsys):
    _, options, fake = project
    fake.broken[1] = MovieError("mic_1.tiff <b>ends</b> early")
    assert cli.main(["run", "OUT", *options]) == cli.EXIT_FAILED_MOVIES == 3
    assert "1 movies failed:\n  M/mic_1.mrc: mic_1.tiff <b>ends</b> early" in capsys.readouterr().out
    cli.main(["status", "OUT"])
    assert "failed: M/mic_1.mrc: mic_1.tiff" in capsys.readouterr().out
    page = open("OUT/report.html", encoding="utf-8").read()
    assert "&lt;b&gt;ends&lt;/b&gt;" in page and "<b>ends" not in page


def first_line_of_status(capsys):
    capsys.readouterr()
    assert cli.main(["status", "OUT"]) == 0
    line = capsys.readouterr().out.split("\n")[0]
    assert line[:31].strip() == "last run"
    return line[31:]


def test_status_says_what_became_of_the_last_run(project, capsys):
    _, options, _ = project
    assert cli.main(["run", "OUT", *options, "--movies", "nope.star"]) == 2
    assert re.match("stopped: .*nope.star", first_line_of_status(capsys))
    assert cli.main(["run", "OUT", *options, "--stage", "align"]) == 0
    assert first_line_of_status(capsys) == "finished"
    with job_lock(JobLayout("OUT")):
        assert first_line_of_status(capsys) == "running (process %d on %s)" % (os.getpid(), socket.gethostname())
    assert first_line_of_status(capsys) == "finished"


def test_status_of_a_run_that_was_killed_and_of_one_on_another_machine(project, capsys):
    _, options, _ = project
    assert cli.main(["run", "OUT", *options, "--stage", "align"]) == 0
    layout = JobLayout("OUT")
    write_json(layout.progress, asdict(Progress("polish", 2, 4, 1.0, 2.0)))
    layout.lock.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "started": 1}))
    cli.main(["status", "OUT"])
    out = capsys.readouterr().out
    assert "ended without a word" in out and out.endswith("last seen: polish 2/4 movies\n")
    layout.lock.write_text(json.dumps({"host": "node7", "process": 12, "started": 1}))
    cli.main(["status", "OUT"])
    out = capsys.readouterr().out
    assert re.search(r"running \(process 12 on node7, last sign of life \d+ s ago\)", out)
    assert out.endswith("now: polish 2/4 movies, 1.0 s/movie, 2 s remaining\n")
    layout.lock.write_text("")
    layout.status.write_text(layout.status.read_text().rpartition('{"event": "finished"')[0])
    assert first_line_of_status(capsys).startswith("ended without a word")


def test_an_input_error_is_one_sentence_and_exit_code_two(project, capsys):
    spec, options, _ = project
    os.unlink(spec.references[0].particles)
    assert cli.main(["run", "OUT", *options]) == 2
    assert capsys.readouterr().err.strip().split("\n")[-1].startswith("refmotion: STAR file ")
    assert cli.main(["status", "nowhere"]) == 2


def test_a_gpu_that_is_not_there(project, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    _, options, _ = project
    assert cli.main(["run", "OUT", *options, "--device", "cuda"]) == 2
    assert "device 'cuda' was asked for but torch" in capsys.readouterr().err
    assert cli.main(["run", "OUT", *options, "--device", "gpu"]) == 2
    assert "'gpu' is not known" in capsys.readouterr().err


def test_an_unforeseen_error_is_logged_whole(project, monkeypatch, capsys):
    _, options, _ = project
    monkeypatch.setattr(job_module, "read_inputs", lambda *a: 1 / 0)
    assert cli.main(["run", "OUT", *options]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in open("OUT/engine.log").read() and "unexpected error" in said and "(it is in OUT/engine.log too)" in said


@pytest.mark.parametrize("error, code, said", [
    (KeyboardInterrupt(), 130, "stopped; the same command begins anew"), (ZeroDivisionError(), 1, "unexpected error, please report it with the text above"),
    (OSError(28, "No space"), 2, "no space left on disk: free some and run the same command again"),
    (MemoryError(), 2, "memory has run out (MemoryError): leave it more and run the same command again")])
def test_of_what_goes_on_and_is_logged_only_the_commands_speak_that_do(monkeypatch, capsys, tmp_path, error, code, said):
    def fail(*args, **kwargs):
        raise error
    monkeypatch.setattr("refmotion_plugin.engine.simulate.simulate", fail)
    assert cli.main(["simulate", str(tmp_path / "sim")]) == code
    assert capsys.readouterr().err.strip().split("\n")[-1] == "refmotion: " + said


@pytest.mark.parametrize("error", [MemoryError(), ImportError("libx.so: failed to map segment from shared object"), RuntimeError("can't start new thread"),
                                   OSError(12, "Cannot allocate memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory\nsecond line")])
def test_memory_that_runs_out_is_said_in_a_sentence(project, monkeypatch, capsys, error):
    _, options, _ = project
    monkeypatch.setattr(job_module, "read_inputs", lambda *a: (_ for _ in ()).throw(error))
    assert cli.main(["run", "OUT", *options]) == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith("refmotion: memory has run out (") and "--memory" in said and "second" not in said


def test_ctrl_c_and_a_polite_kill(project, capsys):
    _, options, fake = project
    fake.broken[1] = KeyboardInterrupt()
    assert cli.main(["run", "OUT", *options]) == 130
    assert "goes on where it was" in capsys.readouterr().err
    fake.broken.clear()
    whole = fake.align_movie

    def killed(movie, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(movie, *args, **kwargs)

    fake.align_movie = killed
    assert cli.main(["run", "OUT", *options]) == 130
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_job_file_with_options_over_it_and_the_folder_alone(project):
    spec, _, fake = project
    open("job.json", "w").write(spec.to_json())
    assert cli.main(["run", "OUT", "--job", "job.json", "--box", "64", "--stage", "align"]) == 0
    assert JobResults("OUT").spec.output.box_px == 64 and fake.count("align") == 3 and fake.count("polish") == 0
    assert cli.main(["run", "OUT"]) == 0
    assert JobResults("OUT").spec.output.box_px == 64 and fake.count("align") == 3 and fake.count("polish") == 3


def test_a_job_file_with_an_unknown_key(project, capsys):
    spec, _, _ = project
    open("job.json", "w").write(spec.to_json().replace('"box_px"', '"bix_px"'))
    assert cli.main(["run", "OUT", "--job", "job.json"]) == 2
    assert "unknown key 'output.bix_px'" in capsys.readouterr().err


def test_handlers_do_not_pile_up(project):
    _, options, _ = project
    before = list(logging.getLogger("refmotion_plugin").handlers)
    cli.main(["run", "OUT", *options])
    assert logging.getLogger("refmotion_plugin").handlers == before


def test_a_bar_on_a_terminal(project, monkeypatch):
    _, options, _ = project
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert cli.main(["run", "OUT", *options]) == 0
    assert "align" in terminal.getvalue() and "3/3" in terminal.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_verdict_is_said_once_at_the_end(project, monkeypatch, terminal):
    _, options, _ = project
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    assert [cli.main(["run", "OUT", *options, "--stage", stage]) for stage in ("align", "weigh")] == [0, 0]
    assert screen.getvalue().count("verdict: " + JobResults("OUT").verdict().text) == 1


def test_warnings_are_seen_beside_the_bar(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    log = logging.getLogger("refmotion_plugin.engine")
    with talk.logging_to(JobLayout(tmp_path / "OUT")), talk.progress_bar() as listener:
        listener(Progress("align", 1, 3, 1.0, 2.0))
        log.warning("half-maps are exchanged")
        log.info("hardly worth a word")
    said = terminal.getvalue()
    assert "half-maps are exchanged\n" in said and "hardly" not in said


def test_help_names_units_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and "spatial correlation distance, A" in text and "(default: 8.0)" in text and "Undefined" not in text


def test_simulation_options_come_from_its_spec(monkeypatch, tmp_path, capsys):
    from refmotion_plugin.engine import simulate
    seen = {}
    real = simulate.simulate

    def recorded(out, spec, progress=None, relative_to=None):
        seen["spec"] = spec
        return real(out, spec, progress, relative_to)

    monkeypatch.setattr(simulate, "simulate", recorded)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["simulate", "sim", "--movies", "1", "--particles", "2", "--frames", "3", "--size-yx", "160", "160", "--box", "48",
                     "--burst-angstrom", "3", "--burst-decay-e-per-A2", "2", "--gain", "--pixel-angstrom", "2.5"]) == 0
    assert (seen["spec"].size_yx, seen["spec"].burst_angstrom, seen["spec"].gain) == ((160, 160), (3.0,), True)
    assert "refmotion run OUT --movies sim/MotionCorr/corrected_micrographs.star" in capsys.readouterr().out
    assert cli.main(["simulate", "sim", "--box", "49"]) == 2


def test_the_line_that_runs_a_simulated_data_set_can_be_pasted(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    paths = SimpleNamespace(corrected_micrographs="sim(1)/m.star", particles=["sim(1)/p.star"], half1=["a.mrc"], half2=["b.mrc"], mask=["k.mrc"])
    assert shlex.split(simulation._run_line(paths))[3:6] == ["--movies", "sim(1)/m.star", "--particles"]
    assert "'sim(1)/m.star'" in simulation._run_line(paths)


def test_the_module_is_the_command():
    result = subprocess.run([sys.executable, "-m", "refmotion_plugin.engine", "status", "/nowhere"], capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.startswith("refmotion: /nowhere holds no job")


def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path):
    """As in ``refmotion status OUT | head -1``."""
    job_module.run_job(tmp_path / "OUT", write_project(tmp_path / "project"), recipes=FakeStages().recipes())
    command = [sys.executable, "-u", "-m", "refmotion_plugin.engine", "status", str(tmp_path / "OUT")]
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")
