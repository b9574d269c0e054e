"""The command ``refmotion``: simulate, run, average, status, report, convert. The only place that prints."""
import contextlib
import errno
import logging
import os
import signal
import sys
import time
from pathlib import Path

from refmotion_plugin.contract import exchange
from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.averages import AverageLayout
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.spec import ComputeSpec, JobSpec

from .lifetime import lasting_imports
from .options import (Parser, add_average_options, add_conversions, add_dataclass_options, add_job_options, average_spec,
                      dataclass_from, job_spec)
from .run.starter import watch_starter

EXIT_FINE, EXIT_BUG, EXIT_INPUT, EXIT_FAILED_MOVIES, EXIT_STOPPED = 0, 1, 2, 3, 130

log = logging.getLogger(__name__)

RUN_EPILOG = """exit codes: 0 finished; 2 the job cannot go on with what was given (one sentence on stderr); 3 finished, but some movies
failed (listed with reasons; their particles are in left_out_particles.star); 130 stopped.
The same command again goes on where an earlier run ended: movies whose inputs and parameters are unchanged are skipped."""

AVERAGE_EPILOG = """exit codes: 0 finished; 2 nothing can be done with what was given (one sentence on stderr); 3 finished, but some movies failed
(listed with reasons); 130 stopped. The same command again averages only what is missing or was made of something else."""


def main(argv=None):
    """Run one command; returns its exit code. With a reading that hangs in the kernel the process ends at once, which nothing else can end."""
    code = _main(argv)
    patience = sys.modules.get("refmotion_plugin.engine.movies.patience")
    if patience is not None and patience.hanging():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _main(argv):
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(arguments)
    values = vars(parser.parse_args(arguments))
    command = values.pop("command")
    try:
        with _stopped_by_signal():
            watch_starter()
            return command(values)
    except InputError as error:
        _say_error(str(error))
        return EXIT_INPUT
    except KeyboardInterrupt:
        _say_error("stopped; the same command goes on where it was")
        return EXIT_STOPPED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _unexpected()
        _say_error("no space left on disk: free some and run the same command again, what is finished is kept")
        return EXIT_INPUT
    except Exception:
        return _unexpected()


def _unexpected():
    log.exception("unexpected error")
    _say_error("unexpected error, please report it with the text above (it is in engine.log too)")
    return EXIT_BUG


def _say_error(text):
    print("refmotion: " + text, file=sys.stderr)


@contextlib.contextmanager
def _stopped_by_signal():
    """A polite kill ends like Ctrl-C: files whole, lock released."""
    def stop(number, frame):
        raise KeyboardInterrupt
    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:      # not in the main thread, where signals are someone else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser(arguments):
    parser = Parser(prog="refmotion", description="Reference-based motion correction of cryo-EM movies.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="simulate | run | average | status | report | reconstruct | convert-weights | convert-hyperparameters")
    run = commands.add_parser("run", help="motion-correct particles", epilog=RUN_EPILOG,
                              description="Align particles in movies to a reference, fit dose weights, write polished particles.")
    run.add_argument("out", metavar="OUT", help="folder of the job; made if absent")
    run.add_argument("--job", metavar="FILE", help="job.json with the parameters; options given besides replace single ones "
                                                   "(none and no options: OUT/job.json)")
    run.add_argument("--stage", choices=("align", "movies", "weigh", "polish", "all"), default="all",
                     help="run one stage only; movies: align, and polish in the same decode once there are weights; then weigh, polish (default: all)")
    add_job_options(run)
    run.set_defaults(command=run_command)
    _add_average(commands)
    for name, command, text in (("status", status_command, "say how far a job is"), ("report", report_command, "write report.html and figures")):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("out", metavar="OUT", help="folder of the job")
        sub.set_defaults(command=command)
    sub.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="write the figures in this format too (default: png)")
    sub.add_argument("--data", action="store_true", help="write the numbers behind every figure as CSV")
    quick = commands.add_parser("reconstruct", help="half-map FSC of a job's particles before and after",
                                description="Reconstruct the particles of a finished job before and after, in the same poses and half-sets, and compare the "
                                            "FSC of their half-maps within each reference's mask. Before: the images along the input motion, if the job was "
                                            "run with --reconstruct; else those that the input names, if they have the same size.")
    quick.add_argument("out", metavar="OUT", help="folder of a finished job")
    quick.add_argument("--symmetry", default=None, help="point group: C1, C2 ..., D2 ..., T, O, I (the same as I2), I1, I2, I3 or I4, oriented as in "
                                                        "RELION (default: that of the job)")
    quick.add_argument("--device", default=ComputeSpec.model_fields["device"].default, help="cpu or cuda:0; auto: a GPU if there is one (default: auto)")
    quick.set_defaults(command=reconstruct_command)
    add_conversions(commands, convert_weights_command, convert_hyperparameters_command)
    _add_simulate(commands, "simulate" in arguments[:1])
    return parser


def _add_average(commands):
    average = commands.add_parser("average", help="average movies into micrographs with dose weights", epilog=AVERAGE_EPILOG,
                                  description="Sum the frames of movies along their input motion, weighted by dose and frequency.")
    average.add_argument("out", metavar="OUT", help="folder of the micrographs; made if absent")
    average.add_argument("--job", metavar="FILE", help="average.json with the parameters; options given besides replace single ones "
                                                       "(none and no options: OUT/average.json)")
    add_average_options(average)
    average.set_defaults(command=average_command)


def _add_simulate(commands, wanted):
    simulate = commands.add_parser("simulate", help="make a data set with known truth",
                                   description="Write movies, their metadata, particles, half-maps, a mask and the truth.")
    simulate.add_argument("out", metavar="OUT", help="folder to write to; made if absent")
    simulate.set_defaults(command=simulate_command)
    if wanted:              # its module takes a moment to load: only for those who ask
        from .simulate.spec import SimulationSpec
        add_dataclass_options(simulate, SimulationSpec)


# ---- commands -----------------------------------------------------------------------------------------------------------

def run_command(values):
    """``refmotion run``."""
    layout = JobLayout(values.pop("out"))
    job_file, stage = values.pop("job"), values.pop("stage")
    if job_file is None and "inputs.movies" not in values and layout.job.exists():
        job_file = layout.job
    spec = job_spec(values, JobSpec.read(job_file) if job_file else None)
    with _logging_to(layout), _progress_bar() as listener:
        with lasting_imports():
            from .run.job import run_job
        start = time.monotonic()
        outcome = run_job(layout.folder, spec, stage=stage, listener=listener)
        report = _write_report(JobResults(layout.folder)) if stage in ("polish", "all") else None
    _print_outcome(layout, spec, stage, outcome, time.monotonic() - start, report)
    return EXIT_FAILED_MOVIES if outcome.failed else EXIT_FINE


def average_command(values):
    """``refmotion average``."""
    layout, job_file = AverageLayout(values.pop("out")), values.pop("job")
    if job_file is None and "inputs.movies" not in values and layout.job.exists():
        job_file = layout.job
    spec = average_spec(values, AverageSpec.read(job_file) if job_file else None)
    with _logging_to(layout), _progress_bar() as listener:
        with lasting_imports():
            from .run.average import run_average
        outcome = run_average(layout.folder, spec, listener)
    print("%d movies averaged: %s" % (outcome.written, layout.corrected_micrographs))
    _print_failed(outcome.failed)
    return EXIT_FAILED_MOVIES if outcome.failed else EXIT_FINE


def _print_outcome(layout, spec, stage, outcome, seconds, report):
    from .run.status import duration
    print("%s finished in %s" % ("job" if stage == "all" else "stage " + stage, duration(seconds)))
    if outcome.particles_written is not None:
        count = len(spec.references)
        stars = ", ".join(str(layout.particles(i, count)) for i in range(count))
        print("%d particles written: %s" % (outcome.particles_written, stars))
        if outcome.particles_left_out:
            print("%d particles left out, with reasons: %s" % (outcome.particles_left_out, layout.left_out))
    if report:
        print("report: %s" % report)
    _print_failed(outcome.failed)


def _print_failed(failed):
    if failed:
        print("%d movies failed:" % len(failed))
    for micrograph, reason in failed.items():
        print("  %s: %s" % (micrograph, reason))


def status_command(values):
    """``refmotion status``."""
    results = JobResults(values["out"])
    for name, number in results.summary().items():
        print("%-30s %s" % (name.replace("_", " "), "%.2f" % number if isinstance(number, float) else number))
    progress = results.progress()
    if progress and progress["done"] < progress["total"]:
        from .run.status import Progress
        print("last seen: " + Progress(**progress).line())
    for movie in results.failed():
        print("failed: %s: %s" % (movie.micrograph, movie.reason))
    return EXIT_FINE


def report_command(values):
    """``refmotion report``."""
    results = JobResults(values["out"])
    print("report: %s" % _write_report(results, values["format"], values["data"]))
    print("figures: %s" % results.layout.figures)
    return EXIT_FINE


def _write_report(*what):
    with lasting_imports():
        from .report import write_report
    return write_report(*what)


def reconstruct_command(values):
    """``refmotion reconstruct``."""
    with lasting_imports():
        from .run.devices import choose_devices
        from .run.reconstruct import Place, keep, reconstruct_job
        from .stages.budget import find_budget
    results = JobResults(values["out"])
    if not results.particle_stars():
        raise InputError("%s has no polished particles: run the job to its end first" % results.layout.folder)
    with _logging_to(results.layout):
        device = choose_devices(values["device"])[0]
        budget = find_budget(results.spec.compute, device).measured()
        room = budget.host_room if budget.device is None else budget.device
        found = reconstruct_job(results, values["symmetry"] or results.spec.output.symmetry, Place(device, room))
        keep(results.layout, found)
    for each in found:
        print(each.sentence)
    return EXIT_INPUT if any(each.fault for each in found) else EXIT_FINE


def convert_weights_command(values):
    """``refmotion convert-weights``."""
    target, group = Path(values["out"]), values["group"] - 1
    if values["pre_exposure"] and values["dose_per_frame"] is None:
        raise InputError("--pre-exposure alone says nothing of the frames' doses: give --dose-per-frame too")
    exposure = None if values["dose_per_frame"] is None else exchange.Exposure(values["dose_per_frame"], values["pre_exposure"])
    weights = exchange.read_weights(values["input"], exposure, values["pixel"], values["normalisation"])
    weights = exchange.for_exposure(weights, exposure, values["frames"])
    exchange.write_weights(target, weights, group, values["pixel"], values["bins"], values["voltage"])
    frames, groups = len(weights.dose_e_per_A2), len(weights.weight)
    print("%s: %d frames to %.1f e/A^2, %d optics group%s" % (target, frames, weights.dose_e_per_A2[-1], groups, "s" * (groups > 1)))
    damage, _ = exchange.damage_sentence(weights, group, values["voltage"])
    if damage:
        print(damage)
    if groups > 1 and target.suffix not in (".npz", ".json"):
        print("this format holds one optics group: %d of %d was written, --group takes another" % (group + 1, groups))
    if target.suffix == ".star":
        print("B-factors describe these weights to within %.1f %% of the mean weight up to 3 A" % (100 * exchange.b_factor_misfit(weights, group)))
    return EXIT_FINE


def convert_hyperparameters_command(values):
    """``refmotion convert-hyperparameters``."""
    prior = exchange.read_hyperparameters(values["input"])
    exchange.write_hyperparameters(values["out"], prior)
    print("%s: velocity %.3g, acceleration %.3g A per e/A^2, correlation distance %.0f A, as this program counts them"
          % (values["out"], prior.velocity_sigma, prior.acceleration_sigma, prior.correlation_distance_angstrom))
    lost = exchange.lost_in_relion(prior) if Path(values["out"]).suffix == ".txt" else []
    if lost:
        print("RELION's prior has no %s: the same strengths mean another prior there" % ", ".join(lost))
    return EXIT_FINE


def simulate_command(values):
    """``refmotion simulate``."""
    from .run.status import Progress
    from .simulate import simulate
    from .simulate.spec import SimulationSpec
    out, start = Path(values.pop("out")), time.monotonic()
    with _progress_bar() as listener:
        def progress(done, total, sentence):
            each = (time.monotonic() - start) / max(done, 1)
            step = Progress("simulate", done, total, each, each * (total - done))
            if listener:
                listener(step)
            else:
                print(step.line(), file=sys.stderr, flush=True)
        paths = simulate(out, dataclass_from(values, SimulationSpec), progress, relative_to=Path.cwd())
    print("run it with: " + _run_line(paths))
    return EXIT_FINE


def _run_line(paths):
    def short(path):
        return os.path.relpath(str(path))
    sets = list(zip(paths.particles, paths.half1, paths.half2, paths.mask))
    line = ["refmotion run OUT --movies", short(paths.corrected_micrographs), "--particles", short(sets[0][0]),
            "--half1", short(sets[0][1]), "--half2", short(sets[0][2]), "--mask", short(sets[0][3])]
    for others in sets[1:]:
        line += ["--reference", ",".join("%s=%s" % (n, short(p)) for n, p in zip(("particles", "half1", "half2", "mask"), others))]
    return " ".join(line)


# ---- how it talks ---------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def _logging_to(layout):
    """Log to engine.log; to stderr too: everything in a log file, only warnings beside a progress bar."""
    try:
        layout.folder.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(str(layout.log), encoding="utf-8")
    except OSError as error:
        raise InputError("%s cannot be written (%s): choose another folder" % (layout.folder, error.strerror)) from None
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_stderr = logging.StreamHandler()
    to_stderr.setLevel(logging.ERROR if sys.stderr.isatty() else logging.INFO)
    to_stderr.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger("refmotion_plugin")
    before, handlers = root.level, (to_file, to_stderr)
    root.setLevel(logging.INFO)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    except (InputError, KeyboardInterrupt) as error:
        root.removeHandler(to_stderr)               # the command's last line says it there
        log.error("%s", str(error) or "stopped")
        raise
    except Exception:
        root.removeHandler(to_stderr)
        log.exception("unexpected error")
        raise
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def _progress_bar():
    """A listener that draws a bar on a terminal; None elsewhere, where log lines say the same."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rest]}"))
    with Bar(*columns, console=Console(stderr=True)) as bar:
        rows = {}

        def listener(progress):
            if progress.stage not in rows:
                rows[progress.stage] = bar.add_task(progress.stage, total=progress.total, rest="")
            bar.update(rows[progress.stage], completed=progress.done, total=progress.total,
                       rest=progress.line().partition(", ")[2])
        yield listener
