"""What a run says of itself: lines of the summary, the methods text, the reason of a failure."""
import os
from functools import lru_cache

from refmotion_plugin.contract import guidance
from refmotion_plugin.contract.averages import AverageLayout, AverageResults
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout, file_stamp
from refmotion_plugin.contract.results import JobResults, read_status

from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters

from .references import chosen_references

_SHOWN_FAILURES = 5
_IN_THE_FORM = {"--no-preflight": "a run with '%s' switched off (advanced, section Movies)" % guidance.GUIDANCE["inputs", "preflight"].label}
"""What reasons of the engine name by their options."""


def lines(protocol, live=None, particles=True):
    """Lines of the summary; ``live``: what a running engine says now; ``particles``: whether the run goes on to them. They are asked for at every click: what is slow was kept as text."""
    text = ["Reference %d: %s" % (r.index + 1, " ↔ ".join(_label(p) for p in r.pointers if p.get() is not None))
            for r in chosen_references(protocol)]
    return text + (live if live is not None else kept_or_gathered(protocol, numbers, particles))


def kept_or_gathered(protocol, gather, *arguments):
    """Lines that a run kept as text.

    A run that was stopped before kept none: ``gather(job folder, *arguments)`` gives them, once for each state of the job. Until the engine has
    begun with the inputs as this start converted them, the job is that of an earlier one.
    """
    kept = protocol.summaryVar.get()
    if kept:
        return kept.split("\n")
    stamp, inputs = file_stamp(JobLayout(protocol._jobFolder()).status), file_stamp(protocol._getExtraPath("inputs", "inputs.json"))
    if None in stamp + inputs or stamp[2] < inputs[2]:
        return ["No results yet."]
    return list(_gathered(gather, os.path.abspath(protocol._jobFolder()), tuple(stamp), *arguments)) or ["No results yet."]


@lru_cache(maxsize=64)
def _gathered(gather, job_folder, stamp, *arguments):
    """``stamp`` tells states of the job from each other."""
    try:
        return gather(job_folder, *arguments)
    except (InputError, OSError):       # an engine that is stopped may leave half a file
        return []


def _label(pointer):
    """Label of the run that an input came from, and which of its outputs."""
    source = pointer.getObjValue()
    return "%s (%s)" % (source.getObjLabel() or source.getClassName(), pointer.getExtended() or source.getName())


def numbers(job_folder, particles=True):
    """Lines with the numbers of a job, gathered from its results, those of its ``particles`` if the run is to make any; [] before there is a job."""
    if not JobLayout(job_folder).job.exists():
        return []
    results = JobResults(job_folder)
    known = results.summary()
    polished = ", %d polished" % known["movies_polished"] if particles else ""
    text = ["%d of %d movies aligned%s." % (known["movies_aligned"], known["movies"], polished)] if known["movies"] else []
    if "verdict" in known:
        text += results.verdict().sentences
    if "hyperparameter_search" in known:
        text.append("Hyperparameter search: %s." % known["hyperparameter_search"])
    if "mean_path_length_angstrom" in known:
        text.append("Mean path of a particle %.1f Å, %.1f Å of it in the first 4 e/Å²; departure from the input motion %.2f Å rms."
                    % (known["mean_path_length_angstrom"], known["mean_early_motion_angstrom"], known["mean_local_rms_angstrom"]))
    if particles and "particles_written" in known:
        text.append("%d particles written, %d left out." % (known["particles_written"], known["particles_left_out"]))
    return text + result_lines(results) + failure_lines(results.failed())


def average_numbers(job_folder):
    """Lines with the numbers of averages; [] before there are any."""
    if not AverageLayout(job_folder).job.exists():
        return []
    results = AverageResults(job_folder)
    movies, failed = results.movies(), results.failed()
    done = sum(m.state == "done" for m in movies)
    return (["%d of %d movies averaged." % (done, len(movies))] if movies else []) + failure_lines(failed)


def result_lines(results):
    """The hyperparameters and dose weights of a job, those that exist."""
    text, prior, weights = [], results.hyperparameters(), results.weights()
    if prior is not None and not results.spec.motion_prior.rigid:
        item = MotionHyperparameters()
        item.setRecord(prior)
        text.append("Hyperparameters (%s): %s." % (_source_of_prior(results.spec), item.inWords()))
    if weights is not None:
        item = EmpiricalDoseWeights()
        item.setRecord(weights)
        text.append("Dose weights (%s): %s." % ("given" if results.spec.dose.weights_file else "measured", item.inWords()))
    return text


def _source_of_prior(spec):
    prior = spec.motion_prior
    if spec.wants_search:
        return "searched"
    return "given" if prior.velocity_sigma or prior.relion_sigmas or prior.hyperparameters_file else "default"


def failure_lines(failed):
    """The first failed movies with their reasons; [] if none failed."""
    if not failed:
        return []
    text = ["%d movie%s failed:" % (len(failed), "s" * (len(failed) > 1))] + ["- %s: %s" % (m.micrograph, m.reason) for m in failed[:_SHOWN_FAILURES]]
    return text + (["- and %d more" % (len(failed) - _SHOWN_FAILURES)] if len(failed) > _SHOWN_FAILURES else [])


def methods(protocol):
    """One paragraph for a paper."""
    if not hasattr(protocol, "outputParticles"):
        return []
    weights = "dose weights measured on the particles" if protocol.inputDoseWeights.get() is None else "given dose weights"
    if protocol.rigidOnly.get():
        return ["Particles%s were summed along the movies' own alignment with %s [Grant2015]." % (_of_movies(protocol), weights)]
    text = ("Particles%s were corrected for beam-induced motion against their reference maps [Zivanov2019] and summed with %s [Grant2015]."
            % (_of_movies(protocol), weights))
    given = protocol.inputHyperparameters.get()
    prior = getattr(protocol, "outputHyperparameters", None) if given is None else given
    return [text + (" The motion prior had the strengths %s." % prior.inWords() if prior is not None else "")]


def _of_movies(protocol):
    """From how many of the input movies particles came; nothing if the job is not there any more."""
    if not JobLayout(protocol._jobFolder()).job.exists():
        return ""
    done = sum(movie.polish == "done" for movie in JobResults(protocol._jobFolder()).movies())
    return " of %d of %d movies" % (done, protocol.inputMovies.get().getSize())


def _in_terms_of_the_form(reason):
    for option, field in _IN_THE_FORM.items():
        reason = reason.replace(option, field)
    return reason


def reason_of_failure(job_folder, exit_code=None, before=0):
    """Why an engine stopped: its own reason if it gave one after ``before`` events, otherwise what is known and where to look."""
    layout = JobLayout(job_folder)
    stopped = [event.get("reason") for event in read_status(layout.status)[before:][-1:] if event.get("event") == "stopped"]
    if stopped and stopped[0]:
        return _in_terms_of_the_form(stopped[0])
    where = "its output is in the logs of this run, its own log is %s" % layout.log
    if exit_code is None:
        return ("the engine ended without a word, as a job does that a queue refused or stopped at its limit of time or memory: %s. "
                "Continue goes on where it was" % where)
    return "the engine stopped with exit code %d: %s" % (exit_code, where)
