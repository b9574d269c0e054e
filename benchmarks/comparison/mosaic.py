"""Large movies at little cost: a small simulated movie repeated side by side, with its particles, under several names.

Particles, noise, rigid shifts and metadata are those of the simulator, so every stage does its real work. Only the repetition is
not real: motion repeats from tile to tile, so results of these movies say nothing about accuracy.
"""
from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import tifffile

from refmotion_plugin.contract.startable import read_tables, write_tables
from refmotion_plugin.engine.simulate import SimulationSpec, simulate

from .project import holds_data


@dataclasses.dataclass(frozen=True)
class Camera:
    """``tile_yx`` px simulated with ``pixel_angstrom`` and ``box_px`` of the reference; ``tiles_yx`` of them; ``finer``: movie px per px of
    the tile along a side, each count put into one of them at random, as a super-resolution camera would."""

    tile_yx: tuple[int, int]
    tiles_yx: tuple[int, int]
    frames: int
    pixel_angstrom: float
    box_px: int
    finer: int = 1


CAMERAS = {"K2": Camera((1855, 1919), (2, 2), 40, 1.06, 200), "K3": Camera((1364, 1440), (3, 4), 40, 0.83, 256),
           "super-resolution": Camera((1364, 1440), (3, 4), 48, 0.83, 256, 2), "small": Camera((480, 512), (2, 2), 12, 2.0, 96),
           "small super-resolution": Camera((480, 512), (2, 2), 12, 2.0, 96, 2)}


@dataclasses.dataclass(frozen=True)
class Mosaic:
    """A project of large movies: ``particles_star(n)`` writes the list with n particles per movie."""

    folder: Path
    tile: Path
    camera: str
    movies: int

    @property
    def names(self) -> list[str]:
        """Names of the movies."""
        return [f"large_{i + 1:03d}" for i in range(self.movies)]

    @property
    def size_yx(self) -> tuple[int, int]:
        """Pixels of a movie."""
        camera = CAMERAS[self.camera]
        return tuple(t * n * camera.finer for t, n in zip(camera.tile_yx, camera.tiles_yx))

    @property
    def frames(self) -> int:
        """Frames of a movie."""
        return CAMERAS[self.camera].frames

    def particles_star(self, count: int) -> Path:
        """Particle STAR file with ``count`` particles in each movie; particles of a tile are used again in each tile."""
        optics, particles = read_tables(self.tile / "particles.star").values()
        (height, width), (rows, columns) = CAMERAS[self.camera].tile_yx, CAMERAS[self.camera].tiles_yx
        tile = np.arange(count) % (rows * columns)
        source = (np.arange(count) // (rows * columns)) % len(particles)
        table = {name: [values[i] for i in source] * self.movies for name, values in particles.columns.items()}
        for column, shift in (("rlnCoordinateX", tile % columns * width), ("rlnCoordinateY", tile // columns * height)):
            moved = particles.numbers(column)[source] + shift
            table[column] = ["%.6f" % v for v in moved] * self.movies
        table["rlnMicrographName"] = [self._micrograph(name) for name in self.names for _ in range(count)]
        table["rlnImageName"] = [f"{i + 1:06d}@Particles/{name}.mrcs" for name in self.names for i in range(count)]
        path = self.folder / f"particles_{count}.star"
        write_tables(path, [optics, dataclasses.replace(particles, columns=table)])
        return path

    def command(self, count: int) -> list[str]:
        """Options of ``refmotion run`` for this project."""
        return ["--movies", str(self.folder / "MotionCorr" / "corrected_micrographs.star"), "--particles", str(self.particles_star(count)),
                *(part for name in ("half1", "half2", "mask") for part in (f"--{name}", str(self.tile / f"{name}.mrc")))]

    def _micrograph(self, name: str) -> str:
        return str(self.folder / "MotionCorr" / f"{name}.mrc")


def make_mosaic(folder: Path, camera: str, movies: int, particles_per_tile: int, compression: str | None = "lzw") -> Mosaic:
    """Simulate the tile and write the movies, one file under several names; what is there already and as asked for is used again."""
    folder = Path(folder).resolve()
    kind = CAMERAS[camera]
    mosaic = Mosaic(folder, folder / "tile", camera, movies)
    spec = SimulationSpec(movies=1, particles=particles_per_tile, frames=kind.frames, size_yx=kind.tile_yx,
                          pixel_angstrom=kind.pixel_angstrom, box=kind.box_px, contrast_scale=1.5, seed=3)
    if not holds_data(mosaic.tile, spec):
        for old in (mosaic.tile, folder / "Movies"):
            shutil.rmtree(old, ignore_errors=True)
        simulate(mosaic.tile, spec)
    first = folder / "Movies" / f"{mosaic.names[0]}.tiff"
    if first.exists() and not _is_compressed(first, compression):
        shutil.rmtree(first.parent)
    for name in ("Movies", "MotionCorr"):
        (folder / name).mkdir(exist_ok=True)
    if not first.exists():
        _write_movie(mosaic.tile / "Movies" / "movie_001.tiff", first, kind, compression)
    for name in mosaic.names[1:]:
        other = first.with_name(f"{name}.tiff")
        if not other.exists():
            os.link(first, other)
    _write_metadata(mosaic)
    return mosaic


def _is_compressed(path, compression):
    with tifffile.TiffFile(path) as file:
        return file.pages[0].compression == (tifffile.COMPRESSION.NONE if compression is None else tifffile.COMPRESSION[compression.upper()])


def _write_movie(source: Path, target: Path, camera: Camera, compression):
    temporary, rng = target.with_suffix(".part"), np.random.default_rng(1)
    with tifffile.TiffFile(source) as small, tifffile.TiffWriter(temporary, bigtiff=True) as large:
        for page in small.pages:
            large.write(np.tile(_finer(page.asarray(), camera.finer, rng), camera.tiles_yx), compression=compression, contiguous=False, metadata=None, photometric="minisblack",
                        rowsperstrip=64)
    temporary.rename(target)


def _finer(frame, factor: int, rng):
    """Each pixel's count in one of factor x factor pixels, drawn at random."""
    if factor == 1:
        return frame
    height, width = frame.shape
    y = factor * np.arange(height)[:, None] + rng.integers(0, factor, frame.shape)
    x = factor * np.arange(width) + rng.integers(0, factor, frame.shape)
    out = np.zeros((height * factor, width * factor), frame.dtype)
    out[y, x] = frame
    return out


def _write_metadata(mosaic: Mosaic):
    folder = mosaic.folder / "MotionCorr"
    tables = read_tables(mosaic.tile / "MotionCorr" / "movie_001.star")
    height, width = mosaic.size_yx
    finer, shifts = CAMERAS[mosaic.camera].finer, tables["global_shift"]
    moved = {axis: ["%.6f" % (v * finer) for v in shifts.numbers(axis)] for axis in ("rlnMicrographShiftX", "rlnMicrographShiftY")}
    tables["global_shift"] = dataclasses.replace(shifts, columns=dict(shifts.columns, **moved))         # in px of the movie
    for name in mosaic.names:
        general = dict(tables["general"].columns, rlnImageSizeX=[str(width)], rlnImageSizeY=[str(height)],
                       rlnMicrographBinning=[str(finer)], rlnMicrographOriginalPixelSize=["%.6f" % (CAMERAS[mosaic.camera].pixel_angstrom / finer)],
                       rlnMicrographMovieName=[str(mosaic.folder / "Movies" / f"{name}.tiff")])
        write_tables(folder / f"{name}.star", [dataclasses.replace(tables["general"], columns=general),
                                               *(t for key, t in tables.items() if key != "general")], single_row=("general",))
    tables = read_tables(mosaic.tile / "MotionCorr" / "corrected_micrographs.star")
    rows = tables["micrographs"].columns
    rows = {column: [values[0]] * mosaic.movies for column, values in rows.items()}
    rows["rlnMicrographName"] = [mosaic._micrograph(name) for name in mosaic.names]
    rows["rlnMicrographMetadata"] = [str(folder / f"{name}.star") for name in mosaic.names]
    write_tables(folder / "corrected_micrographs.star", [dataclasses.replace(t, columns=rows) if key == "micrographs" else t
                                                         for key, t in tables.items()])
