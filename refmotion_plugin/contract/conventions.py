"""THE page of axes, signs, units and index bases. Everything else imports them from here.

Arrays end in (y, x); vectors are (..., 2) in (y, x) order, in Angstrom unless the name says ``_px`` (and then whose).
Frames count from 0 inside, from 1 in STAR files. Angles are degrees at the border and radians inside.

* ``displacement_yx_angstrom[p, f]``: where particle p is *seen* in frame f minus its catalogue position; total motion.
  Polishing shifts by minus this.
* Frame shifts in files are the shift *to apply to the frame*, in unbinned movie pixels: a feature at q in the corrected
  micrograph is at ``q - shift`` in the frame. A program whose micrograph shows the place of a later frame has its zero there, so
  nothing is subtracted.
* The particle's centre sits at ``coordinate - origin``.
* A point r of the map projects to ``A(rot, tilt, psi) r`` (RELION's ZYZ angles); the box centre is pixel ``size // 2``.
* Protein is dark in movies, bright in output particles.
* Half-map 1 belongs to ``rlnRandomSubset`` 1.
"""
import numpy as np

MOVIE_CONTRAST = -1.0       # protein is dark in movies: predictions carry this factor
N_LOCAL_COEFFICIENTS = 36   # 18 for x, then 18 for y
_RELION_16K, _FOURFOLD = 3, 4       # rlnEERUpsampling counts 4K, 8K, 16K; we, how much finer than the sensor


def eer_upsampling(relion_number):
    """How much finer than the sensor's grid EER movies were rendered, from ``rlnEERUpsampling``, which says 3 of a grid four times as fine."""
    return _FOURFOLD if relion_number == _RELION_16K else relion_number


def relion_eer_upsampling(upsampling):
    """Inverse of :func:`eer_upsampling`."""
    return _RELION_16K if upsampling == _FOURFOLD else upsampling


def displacement_from_frame_shifts(shift_xy_px, movie_pixel_angstrom):
    """Rigid displacement of every feature from the shifts stored in files.

    Parameters: ``shift_xy_px`` (frame, 2) in (x, y) order, unbinned movie px, to be applied to the frames;
    ``movie_pixel_angstrom`` A/px. Returns (frame, 2) in (y, x) order, A, zero in the frame whose place the
    micrograph shows (RELION: the first; FlexAlign and MotionCor: one in the middle).
    """
    return -np.asarray(shift_xy_px, dtype=np.float64)[:, ::-1] * movie_pixel_angstrom


def frame_shifts_from_displacement(displacement_yx_angstrom, movie_pixel_angstrom):
    """Inverse of :func:`displacement_from_frame_shifts`: (frame, 2) in (x, y) order, unbinned movie px."""
    return -np.asarray(displacement_yx_angstrom, dtype=np.float64)[:, ::-1] / movie_pixel_angstrom


def local_motion_basis(frame, x_normalised, y_normalised):
    """The 18 polynomial terms of the local motion model, (..., 18).

    Time is the 0-based frame index z (z, z^2, z^3; index fastest), space 1, x, x^2, y, y^2, xy of the position divided by
    the frame's size minus one half. Source: Zheng et al. 2017 as stored by RELION 3.1 (``rlnMotionModelCoeff``).
    """
    z, x, y = np.broadcast_arrays(*[np.asarray(v, dtype=np.float64) for v in (frame, x_normalised, y_normalised)])
    time = np.stack([z, z ** 2, z ** 3], axis=-1)
    space = np.stack([np.ones_like(x), x, x ** 2, y, y ** 2, x * y], axis=-1)
    return (space[..., :, None] * time[..., None, :]).reshape(z.shape + (18,))


def local_shift_yx_px(coefficients, frame, x_normalised, y_normalised):
    """Local part of the shift *to apply*, (..., 2) in (y, x) order, unbinned movie px; it adds to the global shift.

    ``coefficients`` (36,): 18 for x then 18 for y.
    """
    basis = local_motion_basis(frame, x_normalised, y_normalised)
    coefficients = np.asarray(coefficients, dtype=np.float64)
    return np.stack([basis @ coefficients[18:], basis @ coefficients[:18]], axis=-1)


def rotation_matrices(rotation_zyz_degree):
    """A(rot, tilt, psi): (..., 3) degrees -> (..., 3, 3) acting on (x, y, z) column vectors; r of the map goes to A r.

    Source: Heymann, Chagoyen & Belnap 2005, the ZYZ convention of RELION and XMIPP.
    """
    rot, tilt, psi = np.moveaxis(np.deg2rad(np.asarray(rotation_zyz_degree, dtype=np.float64)), -1, 0)
    zero, one = np.zeros_like(rot), np.ones_like(rot)

    def about_z(a):
        return np.stack([np.cos(a), np.sin(a), zero, -np.sin(a), np.cos(a), zero, zero, zero, one], -1).reshape(a.shape + (3, 3))

    about_y = np.stack([np.cos(tilt), zero, -np.sin(tilt), zero, one, zero, np.sin(tilt), zero, np.cos(tilt)], -1)
    return about_z(psi) @ about_y.reshape(tilt.shape + (3, 3)) @ about_z(rot)


def dose_at_mid_frame(n_frames, dose_per_frame_e_per_A2, pre_exposure_e_per_A2=0.0, first_frame=0):
    """Accumulated dose in e/A^2 in the middle of each of ``n_frames`` frames that start at 0-based ``first_frame``."""
    return pre_exposure_e_per_A2 + dose_per_frame_e_per_A2 * (first_frame + np.arange(n_frames) + 0.5)
