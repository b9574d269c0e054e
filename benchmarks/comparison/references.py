"""The reference that both programs get: half-maps of the rigidly aligned particles, their FSC and a mask."""
from __future__ import annotations

import numpy as np

from . import relion
from .maps import filter_by_shell, read_map, write_map
from .project import Project

HALVES = ("regularised", "filtered", "raw", "simulated")


def prepare_reference(project: Project, kind: str, symmetry: str) -> dict:
    """Half-maps for both programs; names below the project and the resolution.

    Parameters
    ----------
    kind : ``regularised``: relion_reconstruct with the FSC of a first reconstruction, as a refinement regularises its maps;
        ``filtered``: raw reconstructions times that FSC; ``raw``: unweighted reconstructions; ``simulated``: the simulator's.
    symmetry : point group.
    """
    pixel = project.spec.pixel_angstrom
    mask = "reference/mask.mrc"
    (project.folder / "reference").mkdir(exist_ok=True)
    (project.folder / mask).write_bytes((project.data / "mask.mrc").read_bytes())
    if kind == "simulated":
        half1 = _copied_halves(project)
    else:
        half1 = _reconstructed(project, kind, symmetry, mask, pixel)
    star = relion.postprocess(project, half1, mask, f"reference/{kind}_fsc", pixel)
    return {"kind": kind, "half1": half1, "half2": half1.replace("half1", "half2"), "mask": mask, "postprocess": star,
            "resolution_angstrom": relion.postprocess_resolution(project.folder / star)}


def _copied_halves(project):
    for half in (1, 2):
        name = f"reference/simulated_half{half}.mrc"
        (project.folder / name).write_bytes((project.data / f"half{half}.mrc").read_bytes())
    return "reference/simulated_half1.mrc"


def _reconstructed(project, kind, symmetry, mask, pixel):
    particles = project.particles()
    raw = relion.reconstruct(project, particles, "reference/raw", symmetry)
    if kind == "raw":
        return raw[0]
    star = relion.postprocess(project, raw[0], mask, "reference/first_fsc", pixel)
    fsc = relion.postprocess_fsc(project.folder / star, relion.UNMASKED_FSC)
    relion.write_fsc_star(project.folder / "reference" / "fsc.star", fsc)
    if kind == "regularised":
        return relion.reconstruct(project, particles, "reference/regularised", symmetry, "reference/fsc.star")[0]
    for half, name in enumerate(raw, 1):
        volume, _ = read_map(project.folder / name)
        write_map(project.folder / f"reference/filtered_half{half}.mrc", filter_by_shell(volume, np.clip(fsc, 0, 1)), pixel)
    return "reference/filtered_half1.mrc"
