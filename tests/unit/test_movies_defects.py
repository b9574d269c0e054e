import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings, strategies as st

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.engine.movies import defects
from refmotion_plugin.engine.movies.defects import find_outliers, plan_replacement, read_defects

from test_movies_writers import mrc_bytes


def test_text_rectangles(tmp_path):
    path = tmp_path / "defects.txt"
    path.write_text("# x y width height\n2 1 3 1\n\n0 4 1 9   # sticks out\n2 1 1 1\n-1 0 2 1\n")
    assert read_defects(path, (6, 8)).tolist() == [[0, 0], [1, 2], [1, 3], [1, 4], [4, 0], [5, 0]]
    path.write_text("2 1 3\n")
    with pytest.raises(MovieError, match="line 1"):
        read_defects(path, (6, 8))
    with pytest.raises(MovieError, match="cannot be read"):
        read_defects(tmp_path / "gone.txt", (6, 8))


def test_maps(tmp_path):
    image = np.zeros((6, 8), np.uint8)
    image[1, 2] = 1
    tifffile.imwrite(tmp_path / "d.tif", image, photometric="minisblack")
    (tmp_path / "d.mrc").write_bytes(mrc_bytes(image[None]))
    assert read_defects(tmp_path / "d.tif", (6, 8)).tolist() == [[4, 2]]     # a TIFF is turned as movies are
    assert read_defects(tmp_path / "d.tif", (6, 8), turn_tiff=False).tolist() == [[1, 2]]
    assert read_defects(tmp_path / "d.mrc", (6, 8)).tolist() == [[1, 2]]
    with pytest.raises(MovieError, match="8 x 6 px and the movie 9 x 6 px"):
        read_defects(tmp_path / "d.mrc", (6, 9))


def _scene(mean, seed=0, size=300):
    """Expected counts of a frame sum with an ice gradient, a dark gold corner with a sharp edge, and particles."""
    y, x = np.mgrid[:size, :size]
    expected = mean * (1 + 0.2 * y / size)
    expected[(y + x) < 90] *= 0.2
    rng = np.random.default_rng(seed)
    for cy, cx in rng.integers(20, size - 20, (40, 2)):
        expected -= 0.1 * mean * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 200)
    return rng.poisson(expected).astype(np.float32)


@pytest.mark.parametrize("mean", [0.5, 4, 40, 1000])
@pytest.mark.parametrize("scale, offset", [(1, 0), (0.013, 0), (100, 0), (1, -3000)])
def test_finds_hot_and_only_hot(mean, scale, offset):
    if offset and mean < 4:
        pytest.skip("a camera with an offset does not count so little")
    total = _scene(mean)
    clean = torch.from_numpy(total * np.float32(scale) + np.float32(offset))
    assert len(find_outliers(clean, 8.0)) == 0
    hot = [[5, 6], [5, 7], [6, 6], [100, 299], [150, 150], [299, 0]]
    for y, x in hot:
        total[y, x] += 12 * np.sqrt(mean) + 45 + mean / 2
    total[200, 201] = total[200, 200] = 60000 + 10 * mean
    found = find_outliers(torch.from_numpy(total * np.float32(scale) + np.float32(offset)), 8.0)
    assert found.tolist() == sorted(hot + [[200, 200], [200, 201]])


@pytest.mark.parametrize("mean", [50, 1000])
def test_finds_dead(mean):
    total = _scene(mean)
    dead = [[120, 130], [250, 299]]
    for y, x in dead:
        total[y, x] = 0
    assert find_outliers(torch.from_numpy(total), 8.0).tolist() == dead


def test_bad_columns_and_zero_movie():
    total = _scene(40)
    total[:, 100] = 0
    found = find_outliers(torch.from_numpy(total), 8.0)
    assert set(map(tuple, found)) == {(y, 100) for y in range(300)}
    assert len(find_outliers(torch.zeros(50, 70), 8.0)) == 0


@pytest.mark.parametrize("threads", [1, 2, 20])
@pytest.mark.parametrize("gained", [False, True])
def test_every_block_has_the_median_and_every_pixel_beyond_its_limits_is_a_candidate(gained, threads):
    """Against the same without strips, pieces and threads, in the same numbers."""
    total = torch.from_numpy(_scene(40, size=301)[:, :270] * (np.float32(0.7) if gained else np.float32(1)))
    padded = torch.nn.functional.pad(total[None, None], (0, 18, 0, 19), mode="replicate")[0, 0]
    blocks = padded.view(10, 32, 9, 32)[:, ::3, :, ::3].permute(0, 2, 1, 3).reshape(10, 9, -1)
    strips = defects._strips(301, threads)
    assert len(strips) == {1: 4, 2: 4, 20: 10}[threads] and [i for rows in strips for i in range(301)[rows]] == list(range(301))
    median, scale, counting = defects._block_levels(total.numpy(), strips, threads)
    assert torch.equal(median, blocks.median(dim=-1).values) and counting
    assert scale == pytest.approx((blocks.var(dim=-1) / blocks.mean(dim=-1)).median().item(), rel=1e-5)
    known = np.zeros(total.shape, bool)
    known[40:60, 50:70] = True
    low, high = (median * factor for factor in (0.8, 1.2))
    spread = lambda limit: limit.repeat_interleave(32, 0)[:301].repeat_interleave(32, 1)[:, :270]
    expected = torch.nonzero(((total < spread(low)) | (total > spread(high))) & ~torch.from_numpy(known))
    found = [defects._coarse_candidates(total.numpy(), known, low.numpy(), high.numpy(), rows) for rows in strips]
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert 1000 < len(expected) < total.numel() / 2


def test_neighbours_and_their_median():
    """Against each pixel's window looked at by itself, at edges and beside known pixels too."""
    rng = np.random.default_rng(4)
    total = rng.poisson(9, (23, 31)).astype(np.float32)
    known = rng.random(total.shape) < 0.1
    yx = np.argwhere(np.ones_like(known)).astype(np.int32)
    near = defects._neighbours(total, known, yx)
    assert near.shape == (total.size, 80)
    believed = np.where(known, np.nan, total)
    for (y, x), found in zip(yx.tolist(), near):
        window = believed.copy()
        window[y, x] = np.nan
        window = window[max(y - 4, 0):y + 5, max(x - 4, 0):x + 5]
        assert sorted(found[~np.isnan(found)].tolist()) == sorted(window[~np.isnan(window)].tolist())
    expected = torch.from_numpy(near).nanmedian(dim=1).values
    np.testing.assert_array_equal(defects._lower_median(near), expected)
    assert np.isnan(defects._lower_median(np.full((1, 80), np.nan, np.float32))).all()


def test_threads_find_the_same():
    total = torch.from_numpy(_scene(40))
    total[100:200:9, 20:280:11] = 150
    known = np.argwhere(np.random.default_rng(2).random((300, 300)) < 0.01)
    found = [find_outliers(total, 8.0, known, threads=n) for n in (1, 3)]
    np.testing.assert_array_equal(*found)
    assert len(found[0]) > 200


def test_known_pixels_are_neither_found_nor_used():
    total = _scene(40)
    known = np.stack(np.meshgrid(np.arange(150, 157), np.arange(150, 157), indexing="ij"), -1).reshape(-1, 2)
    total[150:157, 150:157] = 5000
    assert len(find_outliers(torch.from_numpy(total), 8.0, known)) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10 ** 6), st.sampled_from([0.01, 0.1]))
def test_replacement_takes_good_neighbours(seed, fraction):
    rng = np.random.default_rng(seed)
    bad = rng.random((40, 33)) < fraction
    bad[10:25, 4:27] = True
    plan = plan_replacement(np.argwhere(bad), bad.shape)
    chosen = plan.draw("movie", 3)
    assert not torch.from_numpy(bad).view(-1)[chosen].any()
    assert torch.equal(plan.target, torch.from_numpy(np.flatnonzero(bad)))
    assert torch.equal(chosen, plan.draw("movie", 3)) and not torch.equal(chosen, plan.draw("movie", 4))


def test_replacement_is_near():
    plan = plan_replacement(np.array([[20, 20], [0, 0], [39, 32]]), (40, 33))
    for seed in range(20):
        chosen = plan.draw("m%d" % seed, 0)
        distance = np.stack([chosen // 33, chosen % 33], -1) - np.array([[20, 20], [0, 0], [39, 32]])
        assert np.abs(distance).max() <= 2


def test_replacement_keeps_local_statistics():
    rng = np.random.default_rng(0)
    y = np.mgrid[:200, :200][0]
    frame = rng.poisson(1 + y / 20.0).astype(np.float32)
    bad = np.argwhere(rng.random((200, 200)) < 0.1)
    plan = plan_replacement(bad, frame.shape)
    drawn = torch.from_numpy(frame).view(-1)[plan.draw("m", 0)].numpy()
    expected = 1 + bad[:, 0] / 20.0
    assert abs((drawn - expected).mean()) < 4 * np.sqrt(expected.mean() / len(bad))
    assert abs(((drawn - expected) ** 2 / expected).mean() - 1) < 0.1


def test_all_bad():
    with pytest.raises(MovieError, match="too many"):
        plan_replacement(np.argwhere(np.ones((12, 12), bool)), (12, 12))


def test_half_of_the_frame():
    bad = np.zeros((64, 64), bool)
    bad[:, 32:] = True
    chosen = plan_replacement(np.argwhere(bad), bad.shape).draw("m", 0)
    assert (chosen % 64 < 32).all()
