"""A job under way: what all its stages share, the fingerprints of what is made, and what of it is on disk."""
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Dict

from refmotion_plugin.contract.layout import JobLayout, content_hash, file_stamp, fingerprint

from .found import found_on_disk
from .inputs import JobInputs
from .plan import DONE, plan
from .status import StatusLog


@dataclass
class Job:
    """The one changing thing of a run; everything in it is frozen."""

    spec: object
    layout: JobLayout
    recipes: object
    status: StatusLog
    inputs: JobInputs
    devices: list
    threads: int
    crew: object                                                  # worker processes, or None: this process alone
    run: str                                                      # token of this run in the lock file
    version: str
    prepared: object = None
    weights: object = None
    inputs_mark: str = ""                                          # of the first look at the inputs and of the calibration
    align_marks: Dict[str, str] = field(default_factory=dict)
    failed: Dict[str, str] = field(default_factory=dict)          # key -> reason

    @cached_property
    def optics(self):
        """Each set's optics groups as text, with the state of their MTF files as the run found it."""
        return [repr([replace(group, mtf_file=file_stamp(group.mtf_file)) for _, group in sorted(s.optics.items())]) for s in self.inputs.sets]


def mark_of(job, stage, **made_of):
    """Fingerprint of what a stage makes with the job's parameters and inputs out of ``made_of``."""
    return fingerprint(stage, job.spec, job.version, optics=job.optics, **made_of)


def polish_marks_of(job):
    """Fingerprints of the polish stage; the weights must be on disk."""
    weights = content_hash(job.layout.weights)
    return {key: mark_of(job, "polish", align=mark, weights=weights) for key, mark in job.align_marks.items()}


def found_marks(job, stage, keys=None):
    """Fingerprints on disk of those movies (of ``keys``, or all) whose result files are there too."""
    wanted = [m.key for m in job.inputs.movies if keys is None or m.key in keys]
    return found_on_disk(job.layout, wanted, stage, len(job.inputs.sets), job.spec.output.reconstruct)


def aligned_keys(job, keys=None):
    """Keys (all, or those of ``keys``) with valid trajectories, in the job's order."""
    states = plan(job.align_marks, found_marks(job, "align", None if keys is None else set(keys)))
    return [k for k, state in states.items() if state == DONE]
