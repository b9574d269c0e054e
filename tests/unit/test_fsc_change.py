"""The change of a resolution and its error: right on maps whose noise is known, whatever the point group."""
import numpy as np
import pytest
import torch

from refmotion_plugin.engine.optics.fsc import half_map_fsc, resolution_at
from refmotion_plugin.engine.optics.fsc_change import SECTORS, direction_table, fsc_change, jackknife_error, sector_sums, single_fsc
from refmotion_plugin.engine.optics.reference import soft_sphere
from refmotion_plugin.engine.optics.symmetry import symmetry_operators

BOX, SHARED_NOISE = 48, 0.95
C1 = symmetry_operators("C1")
MASK = soft_sphere(BOX, 12, 4)
SQUARE = sum(np.meshgrid(np.fft.fftfreq(BOX) ** 2, np.fft.fftfreq(BOX) ** 2, np.fft.rfftfreq(BOX) ** 2, indexing="ij"))


def filtered(volume, factor):
    return np.fft.irfftn(np.fft.rfftn(volume) * factor, s=(BOX,) * 3)


def pairs(seed, blur):
    """Half-maps before, blurred by exp(-blur k^2), and after, of one structure; most of their noise is the same."""
    signal = filtered(np.random.default_rng(0).normal(size=(BOX,) * 3) * MASK.numpy(), 12 * np.exp(-40 * SQUARE))
    rng, before, after = np.random.default_rng(seed + 1), [], []
    for _ in range(2):
        shared, *own = rng.normal(size=(3,) + (BOX,) * 3)
        for made, noise, s in ((before, own[0], filtered(signal, np.exp(-blur * SQUARE))), (after, own[1], signal)):
            made.append(torch.from_numpy((s + SHARED_NOISE * shared + (1 - SHARED_NOISE ** 2) ** 0.5 * noise).astype(np.float32)) * MASK)
    return before, after


@pytest.mark.parametrize("blur", [0.0, 10.0])
def test_the_error_is_the_scatter_over_noise(blur):
    found = [fsc_change(*pairs(seed, blur), float(BOX), C1) for seed in range(12)]
    change = np.array([f.after_angstrom - f.before_angstrom for f in found])
    said = np.median([f.error_angstrom for f in found])
    assert (0.6 if blur == 0 else 0.4) * said < change.std(ddof=1) < 1.7 * said     # a real change of a structure that is uneven counts as noise
    assert abs(change.mean()) < 2 * said if blur == 0 else change.mean() < -3 * said
    apart = np.hypot(*[np.std([getattr(f, n) for f in found], ddof=1) for n in ("before_angstrom", "after_angstrom")])
    assert blur > 0 or change.std(ddof=1) < 0.6 * apart            # far from that of two resolutions with noise of their own


@pytest.mark.parametrize("blur", [0.0, 3.0])
def test_the_gain_of_signal_is_told_by_all_shells_with_its_error(blur):
    found = [fsc_change(*pairs(seed, blur), float(BOX), C1) for seed in range(12)]
    gain, said = np.array([f.snr_gain for f in found]), np.median([f.snr_error for f in found])
    assert 0.5 * said < gain.std(ddof=1) < 1.7 * said
    assert abs(gain.mean()) < 2 * said if blur == 0 else gain.mean() > 4 * said


def test_sectors_add_up_to_the_fsc():
    before, after = pairs(0, 10.0)
    found, plain = fsc_change(before, after, float(BOX), C1), half_map_fsc(*after)[0]
    assert np.allclose(found.after[:-1], plain[:-1], atol=2e-3)            # planes and edges are counted once here
    assert found.after_angstrom == pytest.approx(BOX / resolution_at(plain, 0.143), rel=2e-3) == single_fsc(after, float(BOX))[1]


def test_curves_that_do_not_fall_have_no_resolution():
    same = [torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(1))] * 2
    found = fsc_change(same, same, 16.0, C1)
    assert (found.before_angstrom, found.after_angstrom, found.error_angstrom) == (None, None, None) and np.allclose(found.after[1:], 1.0)


@pytest.mark.parametrize("name", ["C1", "C4", "D3", "T", "O", "I2"])
def test_sectors_are_whole_under_the_group(name):
    operators = symmetry_operators(name)
    table = direction_table(operators.tobytes()).numpy()
    assert np.bincount(table.ravel(), minlength=SECTORS).min() > 0.08 * table.size / SECTORS
    rng = np.random.default_rng(2)
    point = rng.normal(size=(400, 3))
    point /= np.linalg.norm(point, axis=1)[:, None]
    point[point[:, 0] < 0] *= -1

    def sector(p):
        p = np.where(p[:, :1] < 0, -p, p)
        row = ((p[:, 2] + 1) * 64).astype(int).clip(0, 127)
        return table[row, ((np.arctan2(p[:, 1], p[:, 0]) / np.pi + 0.5) * 256).astype(int).clip(0, 255)]

    agree = np.mean([np.mean(sector(point @ g.T) == sector(point)) for g in operators])
    assert agree > 0.85                                            # but at edges, for the table has steps


def test_unequal_groups_of_a_mean():
    """The jackknife of a mean of independent numbers is its standard error, however they are dealt into groups."""
    rng, errors = np.random.default_rng(3), []
    for _ in range(300):
        values, group = rng.normal(size=300), np.repeat(np.arange(8), [10, 20, 30, 40, 40, 50, 50, 60])
        size = np.bincount(group).astype(float)
        errors.append(jackknife_error(values.mean(), np.array([values[group != j].mean() for j in range(8)]), size) ** 2)
    assert np.mean(errors) == pytest.approx(1 / 300, rel=0.1)
    assert jackknife_error(1.0, np.array([1.0, 2.0]), np.array([5.0, 0.0])) is None


def test_all_components_are_counted_once():
    one = torch.randn(12, 12, 12, generator=torch.Generator().manual_seed(0))
    count = sector_sums(one, one, C1)[3].sum(0)
    assert count[0] == 0.5 and count[1] == pytest.approx(18 / 2)    # of shell 1 (radius 0.5 to 1.5): 6 + 12 points of the full space, half of them
