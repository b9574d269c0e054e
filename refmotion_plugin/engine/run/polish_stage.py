"""The stage that polishes movies, writes the particle files and compares the particles before and after by reconstruction."""
import logging

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import particles_hash
from refmotion_plugin.contract.results import JobResults

from ..stages.memory import release
from . import outputs, reconstruct
from .distribute import begin_stage, run_tasks
from .plan import DONE, STALE, open_keys, plan
from .state import aligned_keys, found_marks, mark_of, polish_marks_of
from .tasks import MovieTask
from .weigh_stage import fitted_before

log = logging.getLogger(__name__)


def polish_and_write(job):
    """Polish what is open and write the particle files; returns (particles written, particles left out).

    Raises InputError if there are no weights yet, or no particle was polished.
    """
    if job.weights is None:
        job.weights = fitted_before(job)
    if job.weights is None:
        found = "dose weights of other runs or trajectories" if job.layout.weights.exists() else "no dose weights yet"
        raise InputError("%s has %s: run the stage weigh first" % (job.layout.folder, found))
    aligned, marks = set(aligned_keys(job)), polish_marks_of(job)
    states = plan({k: m for k, m in marks.items() if k in aligned}, found_marks(job, "polish"), failed=job.failed)
    work = set(open_keys(states))
    if STALE in states.values():
        outputs.withdraw_particles(job)
    _announce_polished(job, states)
    begin_stage(job, "polish", len(work))
    if work:
        reconstruct.note(job.layout, ())        # the particles that were compared are replaced
    run_tasks(job, [MovieTask(m, job.inputs.particles[m.key], None, marks[m.key]) for m in job.inputs.movies if m.key in work])
    found = found_marks(job, "polish")
    polished = {k for k in aligned if found.get(k) == marks[k] and k not in job.failed}
    written, left_out = outputs.write_particle_stars(job.inputs, job.layout, job.spec, polished, job.failed,
                                                     job.recipes.recentering_yx_px)
    if not written:
        raise InputError("no particle was polished; the first reason: %s" % next(iter(job.failed.values()), "none is inside a movie"))
    if job.spec.output.reconstruct:
        _reconstruct(job, [marks[m.key] for m in job.inputs.movies if m.key in polished])
    return written, left_out


def _announce_polished(job, states):
    """Say which movies have their images already, where that could not be known before: they were aligned, or the weights fitted, only now."""
    said = {m.key for m in JobResults(job.layout.folder).movies() if m.polish == "done"}
    for key, state in states.items():
        if state == DONE and key not in said:
            job.status.event("polish", movie=key, state="done", reason="")


def _reconstruct(job, polished_marks):
    """Compare the particles before and after, unless that was done with the same particles. A fault is said and costs nothing else."""
    symmetry = job.spec.output.symmetry
    mark = mark_of(job, "reconstruct", polished=polished_marks, symmetry=symmetry, prints=[particles_hash(s.table) for s in job.inputs.sets])
    found = reconstruct.kept(job.layout, mark)
    if found is not None:
        reconstruct.note(job.layout, found)
        return
    if job.crew is not None:
        release(job.devices[0])
    references, budget = job.prepared.references, job.prepared.budget
    place = reconstruct.Place(job.devices[0], budget.host_room if budget.device is None else budget.device,
                              tuple(r.resolution_angstrom / reconstruct.BEYOND for r in references))
    try:
        found = reconstruct.reconstruct_job(JobResults(job.layout.folder), symmetry, place, reconstruct.Teller(job.status))
        reconstruct.keep(job.layout, found, mark if not any(r.fault for r in found) else None)
    except (InputError, OSError) as error:
        log.error("what the reconstruction found cannot be written: %s", error)
