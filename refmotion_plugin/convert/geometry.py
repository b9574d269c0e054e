"""Scipion's transformation matrices and RELION's angles and origins.

With A = A(rot, tilt, psi) of ``contract.conventions`` (map -> image) and the origin o in px of the particle image, Scipion
stores the inverse of [A | -o]: a 4 x 4 matrix M with M[:3, :3] = A^T and M[:3, 3] = A^T o.
"""
import numpy as np

_POLE = 1e-9    # sin(tilt) below which rot and psi are one angle


def angles_and_origins(matrices):
    """RELION's description of Scipion's projection matrices.

    Parameters: ``matrices`` (n, 4, 4). Returns ``rotation_zyz_degree`` (n, 3) and ``origin_xy_px`` (n, 2), px of the particle.
    """
    matrices = np.asarray(matrices, dtype=np.float64)
    rotation = np.swapaxes(matrices[:, :3, :3], 1, 2)
    origin = np.einsum("nij,nj->ni", rotation, matrices[:, :3, 3])
    return _zyz_degree(rotation), origin[:, :2]


def _zyz_degree(a):
    """(n, 3, 3) -> (rot, tilt, psi): the third row of A is (sin t cos r, sin t sin r, cos t), the third column (-sin t cos p, sin t sin p, cos t)."""
    sine = np.hypot(a[:, 2, 0], a[:, 2, 1])
    pole = sine < _POLE
    rot = np.where(pole, 0.0, np.arctan2(a[:, 2, 1], a[:, 2, 0]))
    psi = np.where(pole, np.arctan2(a[:, 0, 1], a[:, 1, 1]), np.arctan2(a[:, 1, 2], -a[:, 0, 2]))
    return np.rad2deg(np.stack([rot, np.arctan2(sine, a[:, 2, 2]), psi], axis=-1))


def set_origin(transform, origin_xy_px):
    """Give a Scipion ``Transform`` another in-plane origin (px of its image); the rotation stays as it is."""
    matrix = np.array(transform.getMatrix(), dtype=np.float64)
    matrix[:3, 3] = matrix[:3, :3] @ np.array([origin_xy_px[0], origin_xy_px[1], 0.0])
    transform.setMatrix(matrix)
