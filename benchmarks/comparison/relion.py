"""RELION's programs, run as a user runs them."""
from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from refmotion_plugin.contract.star import read_bfactors_star
from refmotion_plugin.contract.startable import StarTable, read_tables, write_tables

from .measure import Usage, run_measured
from .project import Project

PROGRAMS = ("relion_reconstruct", "relion_postprocess", "relion_motion_refine")
POSTPROCESS_FSC = "rlnFourierShellCorrelationCorrected"
UNMASKED_FSC = "rlnFourierShellCorrelationUnmaskedMaps"


def missing_programs() -> list[str]:
    """Those of RELION's programs that are not on the PATH."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def require_relion() -> None:
    """Stop with a sentence if RELION is not installed."""
    missing = missing_programs()
    if missing:
        raise SystemExit(f"{', '.join(missing)} not found on the PATH: install RELION 3.1 or later (Debian: apt-get install relion)")


def reconstruct(project: Project, particles: str, root: str, symmetry: str, fsc_star: str | None = None) -> list[str]:
    """Both half-maps ``<root>_half1.mrc`` and ``<root>_half2.mrc`` of a particle STAR file; their names."""
    names = []
    (project.folder / root).parent.mkdir(parents=True, exist_ok=True)
    for half in (1, 2):
        name = f"{root}_half{half}.mrc"
        command = ["relion_reconstruct", "--i", particles, "--o", name, "--ctf", "--sym", symmetry, "--pad", 1, "--subset", half]
        command += ["--fsc", fsc_star] if fsc_star else []
        run_measured(command, project.folder, project.folder / "logs" / f"{Path(root).name}_half{half}.log")
        names.append(name)
    return names


def postprocess(project: Project, half1: str, mask: str, folder: str, pixel_angstrom: float) -> str:
    """relion_postprocess of a pair of half-maps in a folder of its own; the name of its STAR file."""
    (project.folder / folder).mkdir(parents=True, exist_ok=True)
    command = ["relion_postprocess", "--i", half1, "--mask", mask, "--o", f"{folder}/postprocess", "--angpix", pixel_angstrom]
    run_measured(command, project.folder, project.folder / "logs" / f"postprocess_{Path(folder).name}.log")
    return f"{folder}/postprocess.star"


def postprocess_fsc(path: Path, column: str = POSTPROCESS_FSC) -> np.ndarray:
    """An FSC curve of a postprocess.star, shells 0 ... n/2."""
    return read_tables(path)["fsc"].numbers(column)


def postprocess_resolution(path: Path) -> float:
    """Resolution in A as RELION prints it."""
    return read_tables(path)["general"].number("rlnFinalResolution")


def write_fsc_star(path: Path, fsc: np.ndarray) -> None:
    """The file that relion_reconstruct --fsc reads. Beyond the first shell without correlation it stays zero."""
    fsc = np.clip(fsc, 0.0, 0.9999)
    gone = np.flatnonzero(fsc < 0.01)
    if len(gone):
        fsc[gone[0]:] = 0.0
    columns = {"rlnSpectralIndex": [str(i) for i in range(len(fsc))], "rlnGoldStandardFsc": ["%.6f" % v for v in fsc]}
    write_tables(path, [StarTable("fsc", columns)])


def motion_refine(project: Project, reference: dict, particles: str, out: str, sigmas, threads: int, combine: bool) -> Usage:
    """relion_motion_refine with three sigmas: tracks only, or tracks and shiny particles."""
    velocity, divergence, acceleration = sigmas
    command = ["relion_motion_refine", "--i", particles, "--o", f"{out}/", "--f", reference["postprocess"], "--m1", reference["half1"],
               "--m2", reference["half2"], "--mask", reference["mask"], "--corr_mic", "MotionCorr/corrected_micrographs.star",
               "--first_frame", 1, "--last_frame", -1, "--s_vel", velocity, "--s_div", divergence, "--s_acc", acceleration]
    if combine:
        command += ["--combine_frames", "--bfac_minfreq", 20, "--bfac_maxfreq", -1]
    shutil.rmtree(project.folder / out, ignore_errors=True)
    return run_measured(command + ["--j", threads], project.folder, project.folder / "logs" / f"{out.replace('/', '_')}.log", threads)


def weights_of(folder: Path, frequency_per_angstrom: np.ndarray) -> np.ndarray:
    """Weights (frame, shell) by the B-factors that a motion_refine run fitted."""
    frames = read_bfactors_star(folder / "bfactors.star")
    return frames.scale[:, None] * np.exp(-frames.b_factor_A2[:, None] * np.square(frequency_per_angstrom) / 4)
