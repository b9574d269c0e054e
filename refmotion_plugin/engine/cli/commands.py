"""What each command does: run, average, status, report, reconstruct. Torch and figures are loaded only by those that need them."""
import socket
import sys
import time

from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.averages import AverageLayout
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.processes import lives
from refmotion_plugin.contract.results import JobResults, read_status
from refmotion_plugin.contract.spec import JobSpec

from ..lifetime import lasting_imports
from ..options import average_spec, job_spec
from .exit_codes import EXIT_FAILED_MOVIES, EXIT_FINE, EXIT_INPUT
from .talk import logging_to, progress_bar


def run_command(values):
    """``refmotion run``."""
    layout = JobLayout(values.pop("out"))
    job_file, stage = values.pop("job"), values.pop("stage")
    if job_file is None and "inputs.movies" not in values and layout.job.exists():
        job_file = layout.job
    spec = job_spec(values, JobSpec.read(job_file) if job_file else None)
    with logging_to(layout), progress_bar() as listener:
        with lasting_imports():
            from ..run.job import run_job
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
    with logging_to(layout), progress_bar() as listener:
        with lasting_imports():
            from ..run.average import run_average
        outcome = run_average(layout.folder, spec, listener)
    print("%d movies averaged: %s" % (outcome.written, layout.corrected_micrographs))
    _print_failed(outcome.failed)
    return EXIT_FAILED_MOVIES if outcome.failed else EXIT_FINE


def _print_outcome(layout, spec, stage, outcome, seconds, report):
    from ..run.status import duration
    print("%s finished in %s" % ("job" if stage == "all" else "stage " + stage, duration(seconds)))
    if outcome.particles_written is not None:
        count = len(spec.references)
        stars = ", ".join(str(layout.particles(i, count)) for i in range(count))
        print("%d particles written: %s" % (outcome.particles_written, stars))
        if outcome.particles_left_out:
            print("%d particles left out, with reasons: %s" % (outcome.particles_left_out, layout.left_out))
    verdict = JobResults(layout.folder).verdict() if stage in ("weigh", "all") else None
    if verdict is not None and sys.stderr.isatty():         # elsewhere the log has just said it there
        print("verdict: " + verdict.text)
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
    from ..run.status import Progress
    results = JobResults(values["out"])
    runs, text = _last_run(results.layout)
    print("%-30s %s" % ("last run", text))
    for name, number in results.summary().items():
        print("%-30s %s" % (name.replace("_", " "), "%.2f" % number if isinstance(number, float) else number))
    progress = results.progress()
    if progress and progress["done"] < progress["total"]:
        if not runs:            # a time that remains is that of a run
            progress = dict(progress, seconds_per_movie=None)
        print(("now: " if runs else "last seen: ") + Progress(**progress).line())
    for movie in results.failed():
        print("failed: %s: %s" % (movie.micrograph, movie.reason))
    return EXIT_FINE


def _last_run(layout):
    """(whether a run works in the folder, what became of the last one). Of a process on another machine only its last sign of life is known."""
    from ..run.lock import holder
    from ..run.status import duration
    holds, events = holder(layout), read_status(layout.status)
    who = "process %s on %s" % (holds.get("process"), holds.get("host"))
    if lives("%s %s %s" % (holds.get("host"), holds.get("process"), holds.get("started"))):
        return True, "running (%s)" % who
    if holds and holds.get("host") != socket.gethostname():
        return True, "running (%s, last sign of life %s ago)" % (who, duration(max(0, time.time() - layout.lock.stat().st_mtime)))
    last = {"event": "killed"} if holds else events[-1] if events else {"event": "none"}
    known = {"none": "none yet", "finished": "finished", "stopped": "stopped: %s" % last.get("reason")}
    return False, known.get(last.get("event"), "ended without a word: the same command goes on where it was")


def report_command(values):
    """``refmotion report``."""
    results = JobResults(values["out"])
    print("report: %s" % _write_report(results, values["format"], values["data"]))
    print("figures: %s" % results.layout.figures)
    return EXIT_FINE


def _write_report(*what):
    with lasting_imports():
        from ..report import write_report
    return write_report(*what)


def reconstruct_command(values):
    """``refmotion reconstruct``."""
    with lasting_imports():
        from ..run.devices import choose_devices
        from ..run.reconstruct import Place, keep, reconstruct_job
        from ..stages.budget import find_budget
    results = JobResults(values["out"])
    if not results.particle_stars():
        raise InputError("%s has no polished particles: run the job to its end first" % results.layout.folder)
    with logging_to(results.layout):
        device = choose_devices(values["device"])[0]
        budget = find_budget(results.spec.compute, device).measured()
        room = budget.host_room if budget.device is None else budget.device
        found = reconstruct_job(results, values["symmetry"] or results.spec.output.symmetry, Place(device, room))
        keep(results.layout, found)
    for each in found:
        print(each.sentence)
    return EXIT_INPUT if any(each.fault for each in found) else EXIT_FINE
