"""What to simulate: one frozen record, every default in it."""
from __future__ import annotations

import dataclasses
import json
import zlib
from pathlib import Path

import numpy as np

from refmotion_plugin.contract.errors import InputError

MOTIONS = ("burst", "none", "gentle", "drift", "jitter", "steps", "doming", "exponential")
MOST_COUNTS_PER_PX, MOST_COUNTS_OF_4_BITS = 60.0, 5.0      # means: single counts stay below 127 and, but for one in ten thousand, below 16
FORMATS = ("tiff-lzw", "tiff-deflate", "mrc", "mrc-uint16", "mrc-float", "mrc-4bit")
_COUNTS = ("movies", "particles", "frames", "box", "species", "optics_groups", "threads")
_ABOVE_ZERO = ("pixel_angstrom", "dose_per_frame", "voltage", "burst_decay_e_per_A2", "spatial_correlation_angstrom", "reference_resolution_angstrom")
_OF_EITHER_SIGN = ("cs_mm", "phase_shift_degree", "beam_tilt_mrad_yx")
_INTERVALS = ("defocus_angstrom", "astigmatism_angstrom")
_INFINITY = float("inf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulationSpec:
    """Parameters of a simulated data set; lengths in angstrom, doses in e/A^2.

    ``particles`` counts per movie and per species. ``motion`` picks a family of
    beam-induced motion (see `motion.py`); ``burst_*`` describe its fast start, rms in two dimensions.
    Errors (pose, origin, rigid shift) are standard deviations per axis. ``contrast_scale``
    is the share of the ideal phase contrast that inelastic losses and the detector leave.
    """

    movies: int = 4
    particles: int = 60
    frames: int = 24
    size_yx: tuple[int, int] = (1024, 1024)
    pixel_angstrom: float = 1.1
    dose_per_frame: float = 1.2
    pre_exposure: float = 0.0
    voltage: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.1
    defocus_angstrom: tuple[float, float] = (7000.0, 14000.0)
    astigmatism_angstrom: tuple[float, float] = (50.0, 300.0)
    phase_shift_degree: float = 0.0
    box: int = 192
    species: int = 1
    symmetry: str = "O"
    bfactor_A2: float = 60.0
    contrast_scale: float = 0.7
    motion: str = "burst"
    burst_angstrom: tuple[float, ...] = (14.0, 6.0)
    burst_decay_e_per_A2: tuple[float, ...] = (2.5, 8.0)
    slow_angstrom: float = 6.0
    spatial_correlation_angstrom: float = 3000.0
    jitter_angstrom: float = 0.15
    stage_drift_angstrom_per_e_per_A2: float = 0.15
    pose_error_degree: float = 0.3
    origin_error_angstrom: float = 0.3
    rigid_shift_error_px: float = 0.1
    coordinate_rounding: bool = True
    format: str = "tiff-lzw"
    gain: bool = False
    hot_pixels: int = 0
    reference_resolution_angstrom: float = 4.0
    optics_groups: int = 1
    beam_tilt_mrad_yx: tuple[float, float] = (0.0, 0.0)
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, str):
                self._check_numbers(name, value if isinstance(value, (tuple, list)) else (value,))
        for name in _INTERVALS:
            low, high = getattr(self, name)
            self._require(low <= high, f"{name} must be a lower and a higher end, got {low:g} and {high:g}")
        self._require(self.amplitude_contrast <= 1, f"amplitude_contrast must be between 0 and 1, got {self.amplitude_contrast:g}")
        self._require(self.motion in MOTIONS, f"motion must be one of {', '.join(MOTIONS)}, got {self.motion!r}")
        self._require(self.format in FORMATS, f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        self._require(self.symmetry in ("O", "C1"), f"symmetry must be O or C1, got {self.symmetry!r}")
        self._require(self.box % 2 == 0, f"box must be even, got {self.box}")
        self._require(self.format != "mrc-4bit" or self.size_yx[1] % 2 == 0,
                      f"a 4-bit movie needs an even width, got {self.size_yx[1]}")
        self._require(min(self.size_yx) > self.box + 8,
                      f"movies of {self.size_yx} px cannot hold boxes of {self.box} px; enlarge size_yx or reduce box")
        most = MOST_COUNTS_OF_4_BITS if self.format == "mrc-4bit" else MOST_COUNTS_PER_PX
        self._require(self.mean_count_per_px <= most,
                      f"{self.mean_count_per_px:.3g} electrons per px and frame are more than the {most:g} that {self.format} movies are counted to; "
                      "reduce dose_per_frame or pixel_angstrom" + (", or choose another format" if most < MOST_COUNTS_PER_PX else ""))
        self._require(len(self.burst_angstrom) == len(self.burst_decay_e_per_A2),
                      "burst_angstrom and burst_decay_e_per_A2 must have the same length")

    def _check_numbers(self, name: str, numbers: tuple[float, ...]) -> None:
        if name in _OF_EITHER_SIGN:
            good, expected = all(-_INFINITY < n < _INFINITY for n in numbers), "a finite number"
        elif name in _ABOVE_ZERO:
            good, expected = all(0 < n < _INFINITY for n in numbers), "a number above 0"
        else:
            least = 1 if name in _COUNTS else 0
            good, expected = all(least <= n < _INFINITY for n in numbers), f"a number from {least} up"
        self._require(good, f"{name} must be {expected}, got {', '.join(map(str, numbers))}")

    @staticmethod
    def _require(good: bool, sentence: str) -> None:
        if not good:
            raise InputError(f"Simulation: {sentence}.")

    @property
    def species_suffixes(self) -> tuple[str, ...]:
        """File name suffixes: one empty string, or ``_A``, ``_B``, ... for several species."""
        return ("",) if self.species == 1 else tuple(f"_{chr(65 + i)}" for i in range(self.species))

    @property
    def mean_count_per_px(self) -> float:
        """Expected electrons per pixel and frame where nothing scatters."""
        return self.dose_per_frame * self.pixel_angstrom**2

    def movie_name(self, index: int) -> str:
        """Stem of movie ``index`` (0-based): ``movie_001`` for the first."""
        return f"movie_{index + 1:03d}"

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "SimulationSpec":
        """Read a record that `write` wrote."""
        values = json.loads(Path(path).read_text())
        return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


def random_stream(spec: SimulationSpec, *names: object) -> np.random.Generator:
    """Independent generator for a named purpose.

    Named streams keep, say, the trajectories of species A unchanged when a
    second species or hot pixels are added to the same seed.
    """
    keys = [spec.seed] + [zlib.crc32(repr(name).encode()) for name in names]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(keys)))
