"""The stage that aligns movies, and polishes in the same decode those whose dose weights are known."""
from refmotion_plugin.contract.layout import content_hash, particles_hash
from refmotion_plugin.contract.results import JobResults

from . import outputs
from .distribute import begin_stage, run_tasks
from .inputs import values_of
from .plan import DONE, STALE, open_keys, plan
from .state import found_marks, mark_of, polish_marks_of
from .tasks import MovieTask
from .weigh_stage import fit_weights, fitted_before, verdict_stands


def align_movies(job, may_run, polish_too):
    """Align what is open, or (``may_run`` false) find out what is aligned already.

    ``polish_too``: once there are weights, given ones or the leaders', each movie is polished in the same decode.
    """
    amplitude = content_hash(job.layout.amplitudes)
    hyperparameters = content_hash(job.layout.hyperparameters)
    for movie in job.inputs.movies:
        job.align_marks[movie.key] = mark_of(job, "align", metadata=values_of(movie), particles=particles_hash(job.inputs.particles[movie.key]),
                                             amplitude=amplitude, hyperparameters=hyperparameters)
    states = plan(job.align_marks, found_marks(job, "align"))
    if not may_run:
        reasons = {m.key: m.reason for m in JobResults(job.layout.folder).movies()}
        job.failed.update({k: reasons.get(k) or "it was not aligned" for k in open_keys(states)})
    _announce(job, {k for k, state in states.items() if state == DONE})
    if not may_run:
        return
    waiting = set(open_keys(states))
    if waiting and job.layout.verdict.exists() and not verdict_stands(job):
        job.layout.verdict.unlink()         # it speaks of other trajectories: nobody shall be told it meanwhile
    if STALE in states.values() and polish_too:
        outputs.withdraw_particles(job)
    begin_stage(job, "align", len(waiting))

    def align(keys, polish_marks=None):
        chosen = waiting.intersection(keys)
        waiting.difference_update(chosen)
        run_tasks(job, [MovieTask(m, job.inputs.particles[m.key], job.align_marks[m.key], (polish_marks or {}).get(m.key))
                        for m in job.inputs.movies if m.key in chosen])

    if polish_too and job.weights is None:
        job.weights = fit_weights(job, align)
    align(set(waiting), polish_marks_of(job) if polish_too else None)


def _announce(job, aligned):
    """Write the list of movies and what is known of each, so that a reader knows what is to come."""
    state = {True: "done", False: "todo"}
    polished = aligned & _polished(job)
    rows = [{"key": m.key, "micrograph": m.micrograph, "n_particles": len(job.inputs.particles[m.key]),
             "align": state[m.key in aligned], "polish": state[m.key in polished]} for m in job.inputs.movies]
    rows += [{"key": name, "micrograph": name, "n_particles": count, "align": "todo", "polish": "todo"}
             for name, (_, count) in job.inputs.unreadable.items()]
    job.status.event("movies", movies=rows)
    for name, (reason, _) in job.inputs.unreadable.items():
        job.status.event("align", movie=name, state="failed", reason=reason)
    for key, reason in job.failed.items():
        job.status.event("align", movie=key, state="failed", reason=reason)


def _polished(job):
    """Keys of the movies whose images are those that this run would make, as far as the dose weights are known."""
    if job.weights is None and fitted_before(job) is None:
        return set()
    return {key for key, state in plan(polish_marks_of(job), found_marks(job, "polish")).items() if state == DONE}
