"""The stage that fits the dose weights, sums the FCC tables and reaches the verdict."""
import functools

from refmotion_plugin.contract import store
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import content_hash, is_done, mark_done
from refmotion_plugin.contract.verdict import load_verdict, save_verdict

from . import leaders, outputs
from .state import aligned_keys, mark_of
from .verdict import early_warnings, gather_evidence


def weigh_movies(job):
    """Fit the weights, sum the FCC tables in the movies' order and reach the verdict, unless that was done with the same tables and weights."""
    keys = aligned_keys(job)
    if not keys:
        _nothing_aligned(job)
    if job.spec.dose.weights_file is None:
        job.weights = fit_weights(job)
    warnings = _warnings(job)
    mark = _mark(job, keys, warnings)
    if not _stands(job.layout, mark):
        evidence = gather_evidence(job.layout, keys)
        job.layout.weigh_done.unlink(missing_ok=True)
        store.save_fcc(job.layout.fcc_total, evidence.totals[0])
        verdict = job.recipes.reach_verdict(evidence, job.prepared, warnings)
        save_verdict(job.layout.verdict, verdict)
        mark_done(job.layout.weigh_done, mark, movies=len(keys))
    job.weights = store.load_weights(job.layout.weights)
    outputs.write_bfactors(job.layout, job.weights)


def verdict_stands(job):
    """Whether the verdict in the job's folder is that of its movies and weights as they are now: an earlier run may have left another."""
    keys = aligned_keys(job)
    return bool(keys) and _stands(job.layout, _mark(job, keys, _warnings(job)))


def _warnings(job):
    return job.inputs.warnings + early_warnings(job.layout, job.inputs_mark)


def _mark(job, keys, warnings):
    return mark_of(job, "weigh", tables=[job.align_marks[k] for k in keys], weights=content_hash(job.layout.weights), warnings=list(warnings))


def _stands(layout, mark):
    return is_done(layout.weigh_done, mark, layout.weights, layout.fcc_total) and _is_whole(layout.verdict)


def _is_whole(verdict):
    """Whether there is a verdict that can be read; one that cannot is reached anew."""
    try:
        return verdict.exists() and load_verdict(verdict) is not None
    except InputError:
        return False


def fit_weights(job, align=None):
    """The job's own dose weights, from its leading movies; InputError if none was aligned."""
    weights = leaders.weigh_leaders(job, functools.partial(_fit_mark, job), functools.partial(aligned_keys, job), align)
    return weights if weights is not None else _nothing_aligned(job)


def fitted_before(job):
    """The job's own dose weights that an earlier run fitted and that still are those of its movies, or None."""
    return leaders.fitted_before(job, functools.partial(_fit_mark, job))


def _fit_mark(job, keys):
    return mark_of(job, "weigh", tables=[job.align_marks[k] for k in keys])


def _nothing_aligned(job):
    first = next(iter(list(job.failed.values()) + [r for r, _ in job.inputs.unreadable.values()]), "align them first")
    raise InputError("no movie was aligned, so there are no dose weights to fit; the first reason: %s" % first)
