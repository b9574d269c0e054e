"""Files of images: what mrcfile says of them is true, whatever the kind of numbers."""
import mrcfile
import numpy as np
import pytest

from refmotion_plugin.engine.run.mrc_files import PART_PX, statistics, write_mrc


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(5, 24, 24), (300, 400), (1, 2, 2)])
def test_header_and_values(tmp_path, shape, half):
    images = np.random.default_rng(0).normal(40.0, 3.0, shape).astype(np.float32)
    images.flat[1] = -7.123456
    write_mrc(tmp_path / "a.mrcs", images, 1.5, half)
    with mrcfile.open(tmp_path / "a.mrcs") as file:
        expected = images.astype(np.float16) if half else images
        np.testing.assert_array_equal(file.data.reshape(shape), expected)             # a stack of one is read as an image
        assert file.data.dtype == expected.dtype and file.header.mz == 1 and file.header.ispg == 0
        assert (file.header.dmin, file.header.dmax) == (expected.min(), expected.max())
        exact = images.astype(np.float64)
        assert file.header.dmean == pytest.approx(exact.mean(), rel=1e-6) and file.header.rms == pytest.approx(exact.std(), rel=1e-5)
        assert file.voxel_size.x == 1.5 and file.get_labels() == ["Written by refmotion"]
    if not half:            # of other numbers mrcfile sums the squares in half precision
        assert mrcfile.validate(tmp_path / "a.mrcs")


def test_statistics_are_those_of_all_parts():
    values = np.random.default_rng(1).normal(size=(3, PART_PX // 2 + 5)).astype(np.float32) + np.float32(1000) * np.arange(3, dtype=np.float32)[:, None]
    least, largest, mean, deviation = statistics(values)
    assert (least, largest) == (values.min(), values.max())
    assert (mean, deviation) == pytest.approx((values.mean(dtype=np.float64), values.std(dtype=np.float64)), rel=1e-6)


def test_an_interrupted_file_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(mrcfile.mrcfile.MrcFile, "flush", lambda self: (_ for _ in ()).throw(OSError(28, "no space left")))
    with pytest.raises(Exception):
        write_mrc(tmp_path / "a.mrcs", np.ones((2, 4, 4), np.float32), 1.0)
    assert not list(tmp_path.glob("*.mrcs"))
