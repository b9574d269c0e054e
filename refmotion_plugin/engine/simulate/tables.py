"""The STAR files of a simulated project, in RELION 3.1's words."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from .catalogue import Catalogue, Scene, optics_of_group
from .render import hot_pixels_yx
from .spec import SimulationSpec
from .write import write_star


class Names:
    """Paths of a data set as its STAR files give them: below ``relative_to``, absolute if the data set lies elsewhere."""

    def __init__(self, spec: SimulationSpec, out: Path, relative_to: Path) -> None:
        self._spec, self._out, self._base = spec, out, relative_to

    def relative(self, *parts: str) -> str:
        """Path of a file of the data set, as written in STAR files."""
        path = self._out / Path(*parts)
        return (path.relative_to(self._base) if self._base in path.parents else path).as_posix()

    def movie(self, index: int) -> str:
        """The movie file."""
        suffix = ".tiff" if self._spec.format.startswith("tiff") else ".mrcs"
        return self.relative("Movies", self._spec.movie_name(index) + suffix)

    def micrograph(self, index: int) -> str:
        """The aligned average."""
        return self.relative("MotionCorr", self._spec.movie_name(index) + ".mrc")

    def metadata(self, index: int) -> str:
        """The movie's own STAR file."""
        return self.relative("MotionCorr", self._spec.movie_name(index) + ".star")

    def stack(self, index: int, suffix: str) -> str:
        """The particle images of one movie."""
        return self.relative("Particles", self._spec.movie_name(index) + suffix + ".mrcs")


def write_movie_star(path: Path, spec: SimulationSpec, names: Names, scene: Scene) -> None:
    """Shifts and description of one movie, as motion correction writes them."""
    general = {
        "rlnImageSizeX": spec.size_yx[1], "rlnImageSizeY": spec.size_yx[0], "rlnImageSizeZ": spec.frames,
        "rlnMicrographMovieName": names.movie(scene.index)}
    if spec.gain:
        general["rlnMicrographGainName"] = names.relative("Movies", "gain.mrc")
    general |= {
        "rlnMicrographBinning": 1.0, "rlnMicrographOriginalPixelSize": spec.pixel_angstrom,
        "rlnMicrographDoseRate": spec.dose_per_frame, "rlnMicrographPreExposure": spec.pre_exposure,
        "rlnVoltage": float(spec.voltage), "rlnMicrographStartFrame": 1, "rlnMotionModelVersion": 0}
    blocks = {"general": general, "global_shift": {
        "rlnMicrographFrameNumber": np.arange(1, spec.frames + 1),
        "rlnMicrographShiftX": scene.shift_yx_px[:, 1], "rlnMicrographShiftY": scene.shift_yx_px[:, 0]}}
    if spec.hot_pixels:
        hot = hot_pixels_yx(spec).astype(float)
        blocks["hot_pixels"] = {"rlnCoordinateX": hot[:, 1], "rlnCoordinateY": hot[:, 0]}
    write_star(path, blocks)


def write_corrected_star(path: Path, spec: SimulationSpec, names: Names, scenes: list[Scene]) -> None:
    """All averages with their optics groups."""
    optics = _optics(spec) | {"rlnMicrographPixelSize": [spec.pixel_angstrom] * spec.optics_groups}
    steps = [np.linalg.norm(np.diff(s.shift_yx_px, axis=0), axis=1) * spec.pixel_angstrom for s in scenes]
    early = max(1, round(4.0 / spec.dose_per_frame))
    write_star(path, {"optics": optics, "micrographs": {
        "rlnMicrographName": [names.micrograph(s.index) for s in scenes],
        "rlnMicrographMetadata": [names.metadata(s.index) for s in scenes],
        "rlnOpticsGroup": [s.group + 1 for s in scenes],
        "rlnAccumMotionTotal": [float(s.sum()) for s in steps],
        "rlnAccumMotionEarly": [float(s[:early].sum()) for s in steps],
        "rlnAccumMotionLate": [float(s[early:].sum()) for s in steps]}})


def write_particles_star(path: Path, spec: SimulationSpec, names: Names, scenes: list[Scene], species: int) -> None:
    """Particles of one species as a refinement leaves them."""
    count = spec.optics_groups
    optics = _optics(spec) | {
        "rlnImagePixelSize": [spec.pixel_angstrom] * count, "rlnImageSize": [spec.box] * count,
        "rlnImageDimensionality": [2] * count}
    if any(spec.beam_tilt_mrad_yx):
        tilts = [optics_of_group(spec, g).beam_tilt_mrad_yx for g in range(count)]
        optics |= {"rlnBeamTiltX": [t[1] for t in tilts], "rlnBeamTiltY": [t[0] for t in tilts]}
    parts = [_particle_columns(spec, names, s, s.catalogues[species], spec.species_suffixes[species]) for s in scenes]
    columns = {key: np.concatenate([np.asarray(part[key]) for part in parts]) for key in parts[0]}
    write_star(path, {"optics": optics, "particles": columns})


def _optics(spec: SimulationSpec) -> dict:
    count = spec.optics_groups
    return {
        "rlnOpticsGroupName": [f"opticsGroup{g + 1}" for g in range(count)],
        "rlnOpticsGroup": list(range(1, count + 1)),
        "rlnMicrographOriginalPixelSize": [spec.pixel_angstrom] * count,
        "rlnVoltage": [float(spec.voltage)] * count, "rlnSphericalAberration": [float(spec.cs_mm)] * count,
        "rlnAmplitudeContrast": [spec.amplitude_contrast] * count}


def _particle_columns(spec, names: Names, scene: Scene, catalogue: Catalogue, suffix: str) -> dict:
    n = len(catalogue.half)
    stack, refined = names.stack(scene.index, suffix), catalogue.refined_zyz_degree
    return {
        "rlnCoordinateX": catalogue.coordinate_yx_px[:, 1], "rlnCoordinateY": catalogue.coordinate_yx_px[:, 0],
        "rlnClassNumber": [1] * n, "rlnImageName": [f"{i + 1:06d}@{stack}" for i in range(n)],
        "rlnMicrographName": [names.micrograph(scene.index)] * n, "rlnOpticsGroup": [scene.group + 1] * n,
        "rlnDefocusU": catalogue.defocus_uva[:, 0], "rlnDefocusV": catalogue.defocus_uva[:, 1],
        "rlnDefocusAngle": catalogue.defocus_uva[:, 2], "rlnCtfBfactor": [0.0] * n, "rlnCtfScalefactor": [1.0] * n,
        "rlnPhaseShift": [float(spec.phase_shift_degree)] * n, "rlnGroupNumber": [scene.index + 1] * n,
        "rlnAngleRot": refined[:, 0], "rlnAngleTilt": refined[:, 1], "rlnAnglePsi": refined[:, 2],
        "rlnOriginXAngst": catalogue.origin_yx_angstrom[:, 1], "rlnOriginYAngst": catalogue.origin_yx_angstrom[:, 0],
        "rlnNormCorrection": [1.0] * n, "rlnRandomSubset": catalogue.half}
