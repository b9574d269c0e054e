"""What the summary says while the engine runs: stage, movies done, rate, time left, what failed and what is known so far."""
import time

from pyworkflow.utils import cleanPath

from refmotion_plugin import convert
from refmotion_plugin.contract.averages import AverageLayout, AverageResults
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout, read_json
from refmotion_plugin.contract.results import JobResults

from . import run_summary

_STAGES = {"align": "Following the particles", "polish": "Writing corrected particles", "average": "Averaging movies", "reconstruct": "Reconstructing before and after"}
_UNITS = {"movie": "movies", "particle": "particles", "step": "steps", "family": "families of priors"}
_SILENT_SECONDS = 900       # a movie takes seconds to minutes


def lines(protocol, of_running):
    """Lines on a run that waits or works, ``of_running(job folder, whether it has but to wait for movies)`` if it works; None if it does neither."""
    if protocol.isScheduled():
        return ["Waits for its inputs."]
    if protocol.isLaunched():
        return ["Waits in the queue." if protocol.useQueue() else "Starting."]
    return of_running(protocol._jobFolder(), _all_batches_done(protocol)) if protocol.isRunning() else None


def _all_batches_done(protocol):
    """True while inputs grow and no step is left but the one that closes the outputs: it waits for the inputs' end."""
    return any(map(convert.is_open, protocol._streamPointers())) and protocol.numberOfSteps - protocol.stepsDone <= 1


def forget(protocol, with_inputs=False):
    """Remove what an earlier start said last, it would be taken for what this start does; ``with_inputs`` its list of converted inputs as well."""
    protocol.summaryVar.set("")
    protocol._store(protocol.summaryVar)
    cleanPath(str(JobLayout(protocol._jobFolder()).progress), *[protocol._getExtraPath("inputs", "inputs.json")] * with_inputs)


def correction_lines(job_folder, waits=False):
    """Lines on a running correction; ``waits``: no batch of movies is left to work on."""
    return _stage_lines(JobLayout(job_folder), waits) + _known(lambda: _so_far(JobResults(job_folder)))


def average_lines(job_folder, waits=False):
    """Lines on running averages; ``waits``: no batch of movies is left to work on."""
    return _stage_lines(AverageLayout(job_folder), waits) + _known(lambda: run_summary.failure_lines(AverageResults(job_folder).failed()))


def _so_far(results):
    return run_summary.result_lines(results) + run_summary.failure_lines(results.failed())


def _known(gather):
    """Lines from results that may not be there yet, or only in part."""
    try:
        return gather()
    except (InputError, OSError):
        return []


def _stage_lines(layout, waits):
    progress = read_json(layout.progress)
    working = bool(progress) and progress["done"] < progress["total"]
    if waits and not working:
        return ["Waits for more movies."]
    if not progress:
        return ["Starting: reading the inputs."]
    stage = progress["stage"]
    name = "Searching hyperparameters, %s" % stage[8:] if stage.startswith("search: ") else _STAGES.get(stage, stage.capitalize())
    text = ["%s: %d of %d %s done%s." % (name, progress["done"], progress["total"], _UNITS.get(progress.get("unit"), "movies"), _pace(progress))]
    silent = time.time() - layout.progress.stat().st_mtime
    if working and silent > _SILENT_SECONDS:
        text.append("Nothing was heard for %s: see the run's log." % duration(silent))
    return text


def _pace(progress):
    each = progress.get("seconds_per_movie")
    if not each or not progress["done"]:
        return ""
    rate = ", %s s each" % ("%.0f" % each if each >= 10 else "%.2g" % each)
    if progress["done"] == progress["total"]:
        return rate
    return rate + " (%.0f per hour), %s left" % (3600 / each, duration(progress["remaining_seconds"]))


def duration(seconds):
    """Seconds as a person says it."""
    minutes = int(round(seconds / 60))
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return "%d min" % minutes
    return "%d h %d min" % divmod(minutes, 60)
