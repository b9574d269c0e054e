"""Small maps, poses and optics for the tests of predictions, and a slow float64 witness of what they should be."""
import numpy as np

from refmotion_plugin.contract.records import OpticsGroup, ParticleTable


def particle_table(n=6, seed=0, **columns):
    """Particles with random poses and astigmatic defocus; ``columns`` replace any of the table's."""
    rng = np.random.default_rng(seed)
    values = dict(
        row=np.arange(n), reference=np.zeros(n, np.int32), micrograph=np.array(["mic.mrc"] * n), coordinate_yx_angstrom=np.zeros((n, 2)),
        origin_yx_angstrom=np.zeros((n, 2)), rotation_zyz_degree=rng.uniform(-180, 180, (n, 3)),
        half=(np.arange(n) % 2 + 1).astype(np.int8), optics_group=np.ones(n, np.int32),
        defocus_u_angstrom=rng.uniform(8e3, 2e4, n), defocus_v_angstrom=rng.uniform(8e3, 2e4, n),
        defocus_angle_degree=rng.uniform(0, 180, n), phase_shift_degree=np.zeros(n), ctf_bfactor_A2=np.zeros(n), ctf_scale=np.ones(n))
    values.update(columns)
    return ParticleTable(**values)


def optics_group(**values):
    """A 200 kV optics group without aberrations; ``values`` replace any field."""
    fields = dict(number=1, name="og1", voltage_kilovolt=200.0, spherical_aberration_millimetre=1.4, amplitude_contrast=0.1,
                  image_pixel_angstrom=2.0, image_size_px=48, micrograph_original_pixel_angstrom=2.0)
    fields.update(values)
    return OpticsGroup(**fields)


def flat_optics():
    """Optics and table columns whose CTF is 1 at all frequencies."""
    return optics_group(spherical_aberration_millimetre=0.0, amplitude_contrast=0.0), dict(
        defocus_u_angstrom=np.zeros(6), defocus_v_angstrom=np.zeros(6), phase_shift_degree=np.full(6, 90.0))


def blobs(box, seed=0, n=50, radius=0.3):
    """Positions (n, 3) as (x, y, z) in px from the box centre, and heights (n,), of an asymmetric particle."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(n, 3))
    distance = radius * box * rng.uniform(0.1, 1.0, n) ** (1 / 3)
    return direction / np.linalg.norm(direction, axis=1)[:, None] * distance[:, None], rng.uniform(0.3, 1.5, n)


def blob_map(box, positions, heights, sigma_px=0.9):
    """Sum of Gaussians, float32 (z, y, x), centre at ``box // 2``."""
    grid = np.arange(box) - box // 2
    x, y, z = (np.exp(-0.5 * ((grid - positions[:, i, None]) / sigma_px) ** 2) for i in range(3))
    return np.einsum("n,nz,ny,nx->zyx", heights, z, y, x).astype(np.float32)


def dft_slice(volume, rotation, frequency_xy_per_px):
    """Slice of the unnormalised DFT of a cube at image frequencies (n, 2), float64, one exponential per voxel."""
    box = volume.shape[0]
    z, y, x = np.nonzero(volume)
    points = np.stack([x, y, z], -1) - box // 2
    k = np.concatenate([frequency_xy_per_px, np.zeros((len(frequency_xy_per_px), 1))], axis=1)
    phase = -2.0 * np.pi * (points @ rotation.T) @ k.T
    return volume[z, y, x].astype(np.float64) @ np.exp(1j * phase)


def correlation(a, b):
    """Pearson correlation of two images."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
