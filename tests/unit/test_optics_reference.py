"""Reading maps, the reference built from them, and its FSC."""
import gzip
import warnings

import mrcfile
import numpy as np
import pytest
import torch

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.spec import ReferenceSpec
from refmotion_plugin.engine.optics.fsc import fsc_limit, half_map_fsc, resolution_at
from refmotion_plugin.engine.optics.reference import build_reference
from refmotion_plugin.engine.optics.volumes import load_reference, read_map
from tests.unit.optics_cases import blob_map, blobs

BOX = 32


def write(path, data, voxel=1.5):
    with warnings.catch_warnings(), mrcfile.new(str(path), overwrite=True) as mrc:
        warnings.simplefilter("ignore")
        mrc.set_data(np.asarray(data))
        if voxel is not None:
            mrc.voxel_size = voxel
    return str(path)


@pytest.fixture()
def volume():
    return blob_map(BOX, *blobs(BOX))


def noisy_pair(volume, sigma, seed=0):
    rng = np.random.default_rng(seed)
    return [(volume + sigma * rng.normal(size=volume.shape)).astype(np.float32) for _ in (1, 2)]


def test_a_map_is_read_as_it_is(tmp_path, volume):
    data, pixel = read_map(write(tmp_path / "a.mrc", volume))
    assert data.dtype == np.float32 and np.array_equal(data, volume) and pixel == pytest.approx(1.5)
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress((tmp_path / "a.mrc").read_bytes()))
    assert np.array_equal(read_map(tmp_path / "a.mrc.gz")[0], volume)
    data, _ = read_map(write(tmp_path / "b.mrc", (volume * 100).astype(np.int16)))
    assert data.dtype == np.float32 and np.array_equal(data, (volume * 100).astype(np.int16))


def broken_maps(folder, volume):
    text = folder / "text.mrc"
    text.write_text("this is no map")
    long_text = folder / "long.mrc"
    long_text.write_text("this is no map " * 500)
    nan = volume.copy()
    nan[3, 4, 5] = np.nan
    flipped = volume.copy()
    flipped[3, 4, 5] = -2e37             # as one bit of the exponent makes it
    return [(folder / "absent.mrc", "does not exist"), (folder, "is a folder"), (text, "MRC"), (long_text, "MRC"),
            (write(folder / "nan.mrc", nan), "1 voxels that are not numbers"), (write(folder / "zero.mrc", 0 * volume), "zero everywhere"),
            (write(folder / "flipped.mrc", flipped), "values as large as 2e\\+37, which no density has"),
            (write(folder / "flat.mrc", volume[:20]), "20 x 32 x 32.*cube"), (write(folder / "image.mrc", volume[0]), "cube"),
            (write(folder / "tiny.mrc", volume[:8, :8, :8]), "8 voxels"), (write(folder / "unit.mrc", volume, None), "no voxel size"),
            (write(folder / "aniso.mrc", volume, (1.5, 1.5, 1.6)), "different voxel sizes")]


def test_unfit_maps_are_refused_with_the_cause(tmp_path, volume):
    for path, cause in broken_maps(tmp_path, volume):
        with pytest.raises(InputError, match=cause):
            read_map(path)


def test_other_axis_orders_are_refused(tmp_path, volume):
    path = write(tmp_path / "a.mrc", volume)
    with mrcfile.open(path, "r+") as mrc:
        mrc.header.mapc, mrc.header.maps = 3, 1
    with pytest.raises(InputError, match="axes in the order"):
        read_map(path)


def spec(folder, first, second, mask=None):
    return ReferenceSpec(particles="p.star", half1=first, half2=second, mask=mask)


def test_halves_and_mask_must_fit_each_other(tmp_path, volume):
    one, two = (write(tmp_path / n, v) for n, v in zip(("1.mrc", "2.mrc"), noisy_pair(volume, 0.1)))
    cases = [(spec(tmp_path, one, one), "same file"), (spec(tmp_path, one, write(tmp_path / "3.mrc", volume, 1.6)), "1.6000 A"),
             (spec(tmp_path, one, write(tmp_path / "4.mrc", volume[:30, :30, :30])), "30 px"),
             (spec(tmp_path, one, two, write(tmp_path / "5.mrc", volume[:30, :30, :30])), "mask.*30 px"),
             (spec(tmp_path, one, two, write(tmp_path / "6.mrc", volume * 0)), "zero everywhere"),
             (spec(tmp_path, one, two, write(tmp_path / "7.mrc", volume * 0 + 3)), r"0 \(outside\) to 1"),
             (spec(tmp_path, one, two, write(tmp_path / "8.mrc", volume * 0 + 0.1)), "nowhere above")]
    for given, cause in cases:
        with pytest.raises(InputError, match=cause):
            load_reference(given)


def test_mask_limits_both_halves_and_gives_the_radius(tmp_path, volume):
    grid = np.arange(BOX) - BOX // 2
    radius = np.sqrt(grid[:, None, None] ** 2 + grid[:, None] ** 2 + grid ** 2)
    mask = (radius <= 6).astype(np.float32)
    one, two = (write(tmp_path / n, v) for n, v in zip(("1.mrc", "2.mrc"), noisy_pair(volume, 0.01)))
    reference = load_reference(spec(tmp_path, one, two, write(tmp_path / "m.mrc", mask)))
    assert reference.particle_radius_angstrom == pytest.approx(6 * 1.5)
    assert reference.box_px == BOX and reference.pixel_angstrom == pytest.approx(1.5)
    origin = (reference.spectrum.shape[-1] - 1,) * 2 + (0,)
    for half, path in enumerate((one, two)):
        expected = (mrcfile.read(path) * mask).sum()
        assert float(reference.spectrum[(half,) + origin].real) == pytest.approx(expected, rel=0.1)   # gridding correction
    assert load_reference(spec(tmp_path, one, two)).particle_radius_angstrom == pytest.approx(0.45 * BOX * 1.5)


def test_each_reference_has_its_own_mask(tmp_path, volume):
    one, two = (write(tmp_path / ("%d.mrc" % i), v) for i, v in enumerate(noisy_pair(volume, 0.01)))
    axis = np.arange(BOX) - BOX // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis ** 2)
    narrow, wide = (load_reference(spec(tmp_path, one, two, write(tmp_path / ("mask%d.mrc" % r), (radius < r).astype(np.float32)))) for r in (6, 12))
    assert narrow.particle_radius_angstrom < 0.6 * wide.particle_radius_angstrom
    assert not torch.allclose(narrow.spectrum[0, :5, :5, :5], wide.spectrum[0, :5, :5, :5])


def test_identical_halves_are_warned_of(tmp_path, volume, caplog):
    load_reference(spec(tmp_path, write(tmp_path / "1.mrc", volume), write(tmp_path / "2.mrc", volume)))
    assert "identical" in caplog.text


def test_spectrum_is_the_transform_of_the_map(volume):
    reference = build_reference((volume, volume), np.ones_like(volume), 1.5)
    m = reference.spectrum.shape[-1] - 1
    grid = np.arange(BOX) - BOX // 2
    flat = volume / np.einsum("i,j,k->ijk", *[np.sinc(grid / (2 * BOX)) ** 2] * 3)
    for kz, ky, kx in [(0, 0, 0), (3, -5, 7), (-8, 2, 0), (0, 0, 11), (-4, -4, 4)]:
        wave = [np.exp(-2j * np.pi * k * grid / (2 * BOX)) for k in (kz, ky, kx)]
        expected = np.einsum("zyx,z,y,x->", flat, *wave)
        assert complex(reference.spectrum[0, m + kz, m + ky, kx]) == pytest.approx(expected, abs=1e-3 * volume.sum())


def test_fsc_of_noisy_halves_is_what_the_noise_says(volume):
    raw, counts = half_map_fsc(*(torch.as_tensor(v) for v in noisy_pair(volume, 0.05)))
    clean = np.abs(np.fft.fftn(volume)) ** 2
    f = np.fft.fftfreq(BOX, 1 / BOX)
    shell = np.sqrt(f[:, None, None] ** 2 + f[:, None] ** 2 + f ** 2).round().astype(int)
    signal = np.bincount(shell.ravel(), clean.ravel())[:BOX // 2 + 1] / np.bincount(shell.ravel())[:BOX // 2 + 1]
    expected = signal / (signal + 0.05 ** 2 * BOX ** 3)
    assert np.abs(raw.numpy() - expected)[3:].max() < 0.1
    assert counts.numpy() == pytest.approx(np.bincount(shell.ravel())[:BOX // 2 + 1] / 2)


def test_fsc_is_smooth_and_stays_zero_after_its_first_crossing(volume):
    smooth = blob_map(BOX, *blobs(BOX), sigma_px=2.0)
    raw, counts = half_map_fsc(*(torch.as_tensor(v) for v in noisy_pair(smooth, 0.2, seed=1)))
    fsc, last = fsc_limit(raw, counts, 1.0)
    assert 2 < last < BOX // 2 - 2
    assert (fsc[last + 1:] == 0).all() and (fsc[:last] > 0).all() and fsc.max() <= 1
    reference = build_reference(noisy_pair(smooth, 0.2, seed=1), np.ones_like(smooth), 1.5)
    assert reference.limit_angstrom == pytest.approx(BOX * 1.5 / last)
    assert reference.limit_angstrom <= reference.resolution_angstrom
    assert reference.spectrum.shape[-1] < BOX                     # only the band with signal is kept
    k = torch.tensor([0.0, 0.5, 1.0, 1.001]) / reference.limit_angstrom
    value = reference.fsc_at(k)
    assert value[0] > 0.9 and value[1] > value[2] and float(reference.fsc_at(torch.tensor(1.0))) == 0.0
    shell = reference.fsc_frequency_per_angstrom
    assert torch.allclose(reference.fsc_at(shell), reference.fsc, atol=1e-5)
    middle = reference.fsc_at(0.5 * (shell[2:4].sum()))
    assert float(middle) == pytest.approx(float(reference.fsc[2:4].mean()), abs=1e-5)


def test_noise_halves_have_no_fsc_and_are_warned_of(caplog):
    halves = noisy_pair(np.zeros((BOX,) * 3), 1.0)
    reference = build_reference(halves, None, 1.5)
    assert "do not agree" in caplog.text and reference.fsc[5:].max() == 0.0
    assert np.isfinite(reference.limit_angstrom) and np.isfinite(reference.resolution_angstrom)


def test_resolution_is_where_the_fsc_crosses():
    assert resolution_at(torch.tensor([1.0, 1.0, 0.9, 0.243, 0.043, 0.0]), 0.143) == pytest.approx(3.5)
    assert resolution_at(torch.ones(6), 0.143) == 5.0


@pytest.mark.parametrize("overwrite", [False, True])
def test_half_maps_are_masked_in_place_only_where_that_is_asked_for(volume, overwrite):
    mask = np.zeros_like(volume)
    mask[4:-4, 4:-4, 4:-4] = 1.0
    given = tuple(v.copy() for v in noisy_pair(volume, 0.05))
    kept = tuple(v.copy() for v in given)
    reference, expected = build_reference(given, mask, 1.5, overwrite=overwrite), build_reference(kept, mask, 1.5)
    assert torch.equal(reference.spectrum, expected.spectrum) and torch.equal(reference.fsc, expected.fsc)
    assert all(np.array_equal(a, b * mask if overwrite else b) for a, b in zip(given, noisy_pair(volume, 0.05)))


def test_a_map_that_does_not_fit_into_memory_is_not_called_damaged(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mrc", np.random.default_rng(0).normal(size=(24, 24, 24)).astype(np.float32))
    monkeypatch.setattr(mrcfile, "open", lambda *a, **k: (_ for _ in ()).throw(MemoryError("Unable to allocate 64.0 MiB")))
    with pytest.raises(InputError, match="a.mrc needs more memory than there is .Unable to allocate 64.0 MiB.: give the job more"):
        read_map(path)
