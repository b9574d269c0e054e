"""What each command does: run, average, status, report, reconstruct. Torch and figures are loaded only by those that need them."""
import time

from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.averages import AverageLayout
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.results import JobResults
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
        from ..run.status import Progress
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
