"""What is passed between the parts: frozen records of numpy arrays with stated shape and unit."""
import hashlib
from dataclasses import dataclass, fields, replace
from typing import Optional, Tuple

import numpy as np


LONGEST_NAME_BYTES = 200    # file systems take 255, and endings are appended


def fitting_name(name):
    """``name`` as it is, or cut to what file systems take, with a hash in place of its end."""
    if len(name.encode("utf-8")) <= LONGEST_NAME_BYTES:
        return name
    digest = hashlib.sha256(name.encode("utf-8")).hexdigest()[:16]
    return name.encode("utf-8")[:LONGEST_NAME_BYTES - 17].decode("utf-8", "ignore") + "-" + digest


@dataclass(frozen=True)
class OpticsGroup:
    """One row of a RELION optics table; units as in the STAR file, named."""

    number: int
    name: str
    voltage_kilovolt: float
    spherical_aberration_millimetre: float
    amplitude_contrast: float
    image_pixel_angstrom: float
    image_size_px: int
    micrograph_original_pixel_angstrom: Optional[float] = None
    beam_tilt_xy_milliradian: Tuple[float, float] = (0.0, 0.0)
    odd_zernike: Tuple[float, ...] = ()
    even_zernike: Tuple[float, ...] = ()
    magnification_matrix: Tuple[float, float, float, float] = (1.0, 0.0, 0.0, 1.0)   # 00, 01, 10, 11 on (x, y)
    mtf_file: Optional[str] = None
    ctf_premultiplied: bool = False


@dataclass(frozen=True)
class ParticleTable:
    """The particles of a job or of one movie; every array has the particle as its first axis.

    ``row`` is the row in the particle set's own STAR file and ``reference`` the index of that set, so (reference, row)
    identifies a particle for ever.
    """

    row: np.ndarray                       # (n,) int64
    reference: np.ndarray                 # (n,) int32
    micrograph: np.ndarray                # (n,) str, rlnMicrographName
    coordinate_yx_angstrom: np.ndarray    # (n, 2) float64, box centre in the corrected micrograph
    origin_yx_angstrom: np.ndarray        # (n, 2) float64
    rotation_zyz_degree: np.ndarray       # (n, 3) float64
    half: np.ndarray                      # (n,) int8, 1 or 2
    optics_group: np.ndarray              # (n,) int32, number within the set's optics table
    defocus_u_angstrom: np.ndarray        # (n,)
    defocus_v_angstrom: np.ndarray        # (n,)
    defocus_angle_degree: np.ndarray      # (n,)
    phase_shift_degree: np.ndarray        # (n,)
    ctf_bfactor_A2: np.ndarray            # (n,)
    ctf_scale: np.ndarray                 # (n,) per-particle scale factor, 1 if the file has none

    def __len__(self):
        return len(self.row)

    def __getitem__(self, index):
        """Sub-table: ``index`` is anything that indexes the first axis and keeps it (slice, mask, integers)."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def position_yx_angstrom(self):
        """Catalogue position ``coordinate - origin``, (n, 2), A from the centre of pixel (0, 0) of the micrograph."""
        return self.coordinate_yx_angstrom - self.origin_yx_angstrom

    @staticmethod
    def concatenate(tables):
        """One table from several, in their order."""
        return ParticleTable(**{f.name: np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(ParticleTable)})


@dataclass(frozen=True)
class MovieMetadata:
    """What a per-movie STAR file (RELION motion correction) says of one movie."""

    micrograph: str                       # rlnMicrographName, the key particles refer to
    movie_file: str
    size_yx: Tuple[int, int]              # unbinned movie px
    n_frames: int                         # frames (fractions for EER) of the movie as aligned
    original_pixel_angstrom: float        # unbinned movie px
    binning: float                        # corrected micrograph px / unbinned movie px
    dose_per_frame_e_per_A2: float
    pre_exposure_e_per_A2: float
    voltage_kilovolt: float
    start_frame: int                      # 1-based first frame of the file used upstream
    global_shift_xy_px: np.ndarray        # (n_frames, 2), to apply, unbinned movie px
    local_coefficients: Optional[np.ndarray] = None   # (36,) or None
    hot_pixels_xy: Optional[np.ndarray] = None        # (m, 2) int, unbinned movie px
    gain_file: Optional[str] = None
    defect_file: Optional[str] = None
    eer_grouping: Optional[int] = None
    eer_upsampling: Optional[int] = None

    @property
    def key(self):
        """Folder name of the movie in a job: the micrograph's path with separators replaced, without extension; a very long one is cut,
        with a hash in place of its end."""
        stem = self.micrograph.rsplit(".", 1)[0] if "." in self.micrograph.rsplit("/", 1)[-1] else self.micrograph
        return fitting_name("".join(c if c.isalnum() or c in "-_." else "_" for c in stem).lstrip("._") or "movie")


@dataclass(frozen=True)
class Hyperparameters:
    """Strengths of the motion prior. The first three are the ones users know; the rest has sound defaults.

    Units: ``velocity_sigma`` A per (e/A^2); ``correlation_distance_angstrom`` A; ``acceleration_sigma`` A per (e/A^2);
    ``early_factor`` (beta) and ``early_dose_e_per_A2`` (tau): sigma(N) = sigma (1 + beta exp(-N / tau)) of dose N;
    ``jitter_angstrom`` white per particle and frame; ``global_angstrom`` free shift of the whole frame: error of the input's rigid
    motion; ``common_sigma`` A per (e/A^2): how much the rigid motion itself changes its velocity from frame to frame (0: not limited);
    ``offset_angstrom`` constant error of each catalogue position. ``kernel``: "matern" or "exponential" in space.
    ``correlated_acceleration``: accelerations share the spatial kernel (else independent per particle).
    ``movie_spread``: natural-log standard deviation of each movie's own values around these (velocity, acceleration, early factor,
    correlation distance, global shift and common motion are scaled where the movie's evidence says so); 0: the same for every movie.
    ``jitter_followed``: trajectories contain what data say of the jitter; false: they are as without jitter, which is only part of
    their standard deviations.
    """

    velocity_sigma: float
    correlation_distance_angstrom: float
    acceleration_sigma: float
    early_factor: float
    early_dose_e_per_A2: float
    jitter_angstrom: float
    global_angstrom: float
    offset_angstrom: float
    kernel: str
    correlated_acceleration: bool
    movie_spread: float
    common_sigma: float = 0.0
    jitter_followed: bool = True


@dataclass(frozen=True)
class Trajectories:
    """Motion of the particles of one movie."""

    micrograph: str
    reference: np.ndarray                 # (n,) index of the particle set
    row: np.ndarray                       # (n,) row in that set
    position_yx_angstrom: np.ndarray      # (n, 2) catalogue positions
    displacement_yx_angstrom: np.ndarray  # (n, frame, 2) float32, seen position minus catalogue position
    deviation_sd_angstrom: np.ndarray     # (n, frame) float32, posterior standard deviation per axis of the place, constant offset and all
    initial_yx_angstrom: np.ndarray       # (n, frame, 2) float32, the rigid/local motion that was the start
    dose_e_per_A2: np.ndarray             # (frame,) at mid-frame
    stop_reason: str                      # converged / iteration limit / no descent
    motion_sd_angstrom: Optional[np.ndarray] = None   # (n, frame) float32, the same of the displacement less its mean over frames; None in files of earlier versions

    @property
    def sd_of_motion_angstrom(self):
        """(n, frame) standard deviation per axis of the motion, or of the place, which is larger, where that alone is known."""
        return self.deviation_sd_angstrom if self.motion_sd_angstrom is None else self.motion_sd_angstrom


@dataclass(frozen=True)
class FccTable:
    """Additive sums of the Fourier cylinder correlation; group = optics group.

    ``components``: number of independent complex components summed, per (group, shell) and summed over particles.
    """

    frequency_per_angstrom: np.ndarray    # (shell,)
    dose_e_per_A2: np.ndarray             # (frame,) at mid-frame
    cross: np.ndarray                     # (group, frame, shell) float64, sum Re[Y exp(+2 pi i k d) conj(A_opp)]
    power_movie: np.ndarray               # (group, frame, shell) float64, sum |Y|^2
    power_reference: np.ndarray           # (group, frame, shell) float64, sum |A_opp|^2
    components: np.ndarray                # (group, frame, shell) float64

    def __add__(self, other):
        return replace(self, **{n: getattr(self, n) + getattr(other, n)
                                for n in ("cross", "power_movie", "power_reference", "components")})

    @property
    def fcc(self):
        """Correlation per (group, frame, shell); 0 where there is no power."""
        power = np.sqrt(self.power_movie * self.power_reference)
        return np.divide(self.cross, power, out=np.zeros_like(power), where=power > 0)


@dataclass(frozen=True)
class DoseWeights:
    """Empirical dose weights with the axes that let other frame counts and pixel sizes use them."""

    weight: np.ndarray                    # (group, frame, shell) relative amplitudes, normalised as named
    frequency_per_angstrom: np.ndarray    # (shell,)
    dose_e_per_A2: np.ndarray             # (frame,) at mid-frame
    b_factor_A2: np.ndarray               # (group, frame): amplitude falls as exp(-B k^2 / 4)
    scale: np.ndarray                     # (group, frame)
    b_factor_error_A2: np.ndarray         # (group, frame) standard errors
    scale_error: np.ndarray               # (group, frame)
    normalisation: str                    # sum / power / peak
    source: str                           # how they came about, for reports
