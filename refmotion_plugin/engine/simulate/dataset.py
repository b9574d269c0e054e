"""`simulate`: write movies, their metadata, particles, half-maps and the truth."""
from __future__ import annotations

import dataclasses
import multiprocessing
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np

from refmotion_plugin.contract.errors import InputError

from .average import RigidAverage, extract
from .catalogue import Scene, draw_scene
from .damage import frame_amplitude, middle_dose
from .reference import half_maps, rigid_transfer, shells_per_angstrom, soft_mask, true_map
from .render import draw_gain, hot_pixels_yx, raw_frames
from .spec import SimulationSpec, random_stream
from .structure import Structure, globular_complex, octahedral_cage
from .tables import Names, write_corrected_star, write_movie_star, write_particles_star
from .write import MovieWriter, write_mrc

_LARGEST_RADIUS_ANGSTROM = 61.0  # 432 kDa as a hollow octahedral cage
_RADIUS_PER_BOX = 0.34
_UNFIT_NAME = re.compile(r"""[\s"',]|^(?:[_#]|data_|loop_)""")  # names stand bare in STAR files, and in lists with commas on the line that runs them

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatedPaths:
    """Where everything went; one entry per species where a tuple is given."""

    folder: Path
    corrected_micrographs: Path
    particles: tuple[Path, ...]
    half1: tuple[Path, ...]
    half2: tuple[Path, ...]
    mask: tuple[Path, ...]
    truth: Path


def simulate(out: Path, spec: SimulationSpec, progress: Progress | None = None,
             relative_to: Path | None = None) -> SimulatedPaths:
    """Write a complete data set with known truth.

    Parameters
    ----------
    out : folder to write to (made if absent).
    spec : what to simulate; the same spec gives the same bytes whatever ``threads``.
    progress : called with (movies done, movies in all, sentence).
    relative_to : folder that paths inside STAR files are relative to; default ``out``.

    Returns
    -------
    The paths of what was written.

    Raises InputError when ``out`` cannot be made, or has a name that STAR files cannot hold.
    """
    out = Path(out).resolve()
    names = Names(spec, out, Path(relative_to).resolve() if relative_to else out)
    _make_folders(out, names)
    structures = draw_structures(spec)
    radii = tuple(s.radius_angstrom for s in structures)
    scenes = [draw_scene(spec, i, radii) for i in range(spec.movies)]
    if spec.gain:
        write_mrc(out / "Movies" / "gain.mrc", draw_gain(spec), spec.pixel_angstrom)
    sigmas = _all_movies(out, spec, names, progress or (lambda done, total, sentence: None))
    write_corrected_star(out / "MotionCorr" / "corrected_micrographs.star", spec, names, scenes)
    for index, structure in enumerate(structures):
        write_particles_star(_species_file(out, spec, "particles", ".star", index), spec, names, scenes, index)
        _write_reference(out, spec, structure, scenes, index, np.mean([s[index] for s in sigmas]))
    _write_damage(out, spec)
    spec.write(out / "truth" / "spec.json")
    return _paths(out, spec)


def _make_folders(out: Path, names: Names) -> None:
    named = names.relative("Movies")
    if _UNFIT_NAME.search(named):
        raise InputError(f"{named!r} cannot stand in STAR files and on a command line: choose a folder whose path has no blank, quote or comma "
                         "and does not begin with _, #, data_ or loop_")
    try:
        for folder in ("Movies", "MotionCorr", "Particles", "truth"):
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}): choose another folder") from None


def draw_structures(spec: SimulationSpec) -> tuple[Structure, ...]:
    """One structure per species: first the cage (or a globule for C1), then smaller globules."""
    largest = min(_LARGEST_RADIUS_ANGSTROM, _RADIUS_PER_BOX * spec.box * spec.pixel_angstrom)
    drawn = []
    for index in range(spec.species):
        rng = random_stream(spec, "structure", index)
        if index == 0 and spec.symmetry == "O":
            drawn.append(octahedral_cage(rng, largest))
        else:
            drawn.append(globular_complex(rng, largest if index == 0 else 0.85 * largest))
    return tuple(drawn)


def _all_movies(out: Path, spec: SimulationSpec, names: Names, progress: Progress) -> list[tuple[float, ...]]:
    tasks = [(out, spec, names, index) for index in range(spec.movies)]
    if spec.threads == 1:
        done = []
        for task in tasks:
            done.append(_one_movie(*task))
            progress(len(done), spec.movies, f"{spec.movie_name(task[3])} written")
        return done
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(spec.threads, spec.movies), mp_context=context, initializer=_end_with_parent) as pool:
        futures = {pool.submit(_one_movie, *task): task[3] for task in tasks}
        for count, future in enumerate(as_completed(futures), 1):
            future.result()
            progress(count, spec.movies, f"{spec.movie_name(futures[future])} written")
        return [future.result() for future in futures]


def _end_with_parent() -> None:
    """This worker process ends when the one that started it is gone, however it ended: else it would wait for work for ever."""
    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _one_movie(out: Path, spec: SimulationSpec, names: Names, index: int) -> tuple[float, ...]:
    """Write one movie with all that belongs to it; returns the mean background sigma of each species' images."""
    structures = draw_structures(spec)
    scene = draw_scene(spec, index, tuple(s.radius_angstrom for s in structures))
    stem = spec.movie_name(index)
    micrograph = _write_frames(out / "Movies" / Path(names.movie(index)).name, spec, scene, structures)
    write_mrc(out / "MotionCorr" / f"{stem}.mrc", micrograph, spec.pixel_angstrom)
    write_movie_star(out / "MotionCorr" / f"{stem}.star", spec, names, scene)
    sigmas = []
    for suffix, catalogue in zip(spec.species_suffixes, scene.catalogues):
        images, sigma = extract(micrograph, catalogue.coordinate_yx_px, spec.box)
        write_mrc(out / "Particles" / f"{stem}{suffix}.mrcs", images, spec.pixel_angstrom)
        sigmas.append(float(sigma.mean()))
        _write_truth(out / "truth" / f"{stem}{suffix}.npz", spec, scene, catalogue)
    return tuple(sigmas)


def _write_frames(path: Path, spec: SimulationSpec, scene: Scene, structures) -> np.ndarray:
    """Write the movie; returns its aligned, dose-weighted average."""
    gain = draw_gain(spec) if spec.gain else None
    hot_y, hot_x = hot_pixels_yx(spec).T
    average = RigidAverage(spec, scene.shift_yx_px)
    writer = MovieWriter(path, spec.format, (spec.frames, *spec.size_yx), spec.pixel_angstrom)
    for counts in raw_frames(spec, scene, structures, gain):
        writer.add(counts)
        frame = counts.astype(np.float32) if gain is None else counts * gain
        frame[hot_y, hot_x] = spec.mean_count_per_px
        average.add(frame)
    writer.close()
    return average.image()


def _write_truth(path: Path, spec: SimulationSpec, scene: Scene, catalogue) -> None:
    displacement = catalogue.displacement_yx_angstrom(spec.pixel_angstrom)
    np.savez(
        path, displacement_yx_angstrom=displacement.mean(axis=2), substep_displacement_yx_angstrom=displacement,
        displacement_start_yx_angstrom=_extrapolate(displacement, 0), displacement_end_yx_angstrom=_extrapolate(displacement, -1),
        position_yx_px=catalogue.position_yx_px, true_rotation_zyz_degree=catalogue.rotation_zyz_degree,
        coordinate_yx_px=catalogue.coordinate_yx_px, origin_yx_angstrom=catalogue.origin_yx_angstrom,
        defocus_uva_angstrom_degree=catalogue.defocus_uva, half=catalogue.half, optics_group=scene.group + 1,
        rigid_yx_angstrom=scene.rigid_yx_angstrom, shift_yx_px=scene.shift_yx_px)


def _extrapolate(displacement, end: int) -> np.ndarray:
    """Displacement at the start (0) or end (-1) of each frame from the two substeps next to it."""
    inner = 1 if end == 0 else -2
    return 1.5 * displacement[:, :, end] - 0.5 * displacement[:, :, inner]


def _write_reference(out, spec, structure, scenes, index, sigma) -> None:
    suffix = spec.species_suffixes[index]
    density = true_map(spec, structure)
    mask = soft_mask(spec, density)
    transfer = np.mean([rigid_transfer(spec, s.catalogues[index], s.shift_yx_px) for s in scenes], axis=0)
    halves = half_maps(spec, density, mask, transfer * spec.mean_count_per_px / sigma, suffix)
    for name, volume in (("half1", halves[0]), ("half2", halves[1]), ("mask", mask)):
        write_mrc(_species_file(out, spec, name, ".mrc", index), volume, spec.pixel_angstrom, volume=True)
    write_mrc(out / "truth" / f"map{suffix}.mrc", density.astype(np.float32), spec.pixel_angstrom, volume=True)
    np.savez(out / "truth" / f"structure{suffix}.npz", xyz_angstrom=structure.xyz_angstrom,
             radius_angstrom=structure.radius_angstrom)


def _write_damage(out: Path, spec: SimulationSpec) -> None:
    k = shells_per_angstrom(spec)
    amplitude = frame_amplitude(k, spec.frames, spec.dose_per_frame, spec.pre_exposure, spec.voltage)
    np.savez(out / "truth" / "damage.npz", amplitude=amplitude, frequency_per_angstrom=k,
             dose_e_per_A2=middle_dose(spec.frames, spec.dose_per_frame, spec.pre_exposure))


def _species_file(out: Path, spec: SimulationSpec, stem: str, ending: str, index: int) -> Path:
    return out / f"{stem}{spec.species_suffixes[index]}{ending}"


def _paths(out: Path, spec: SimulationSpec) -> SimulatedPaths:
    def each(stem, ending):
        return tuple(_species_file(out, spec, stem, ending, i) for i in range(spec.species))

    return SimulatedPaths(
        folder=out, corrected_micrographs=out / "MotionCorr" / "corrected_micrographs.star",
        particles=each("particles", ".star"), half1=each("half1", ".mrc"), half2=each("half2", ".mrc"),
        mask=each("mask", ".mrc"), truth=out / "truth")
