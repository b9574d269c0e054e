import numpy as np
import pytest
import tifffile
import torch

from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.records import MovieMetadata
from refmotion_plugin.contract.spec import InputSpec
from refmotion_plugin.engine.movies import doubts
from refmotion_plugin.engine.movies import stack as stack_module
from refmotion_plugin.engine.movies.scratch import Scratch
from refmotion_plugin.engine.movies.stack import load_movie

from test_movies_writers import eer_bytes, mrc_bytes, pack_nibbles, random_events

SHAPE = (64, 80)


def _frames(dtype=np.uint8, n=5, seed=0, mean=4.0):
    return np.random.default_rng(seed).poisson(mean, (n,) + SHAPE).astype(dtype)


def _write(path, frames):
    if path.suffix == ".mrc":
        path.write_bytes(mrc_bytes(frames, maximum=float(frames.max())))
        return path
    with tifffile.TiffWriter(path) as writer:
        for frame in frames:
            writer.write(frame, compression="lzw", photometric="minisblack", contiguous=False)
    return path


def _metadata(path, n_frames=5, **changes):
    values = dict(micrograph="MotionCorr/job002/m1.mrc", movie_file=str(path), size_yx=SHAPE, n_frames=n_frames,
                  original_pixel_angstrom=0.9, binning=1.0, dose_per_frame_e_per_A2=1.0, pre_exposure_e_per_A2=0.0,
                  voltage_kilovolt=300.0, start_frame=1, global_shift_xy_px=np.zeros((n_frames, 2)))
    values.update(changes)
    return MovieMetadata(**values)


def _inputs(**changes):
    return InputSpec(**{"movies": "corrected_micrographs.star", "hot_pixel_sigma": 0.0, **changes})


@pytest.mark.parametrize("name, flip, turned", [("m.tif", None, True), ("m.tif", False, False), ("m.tif", True, True),
                                                ("m.mrc", None, False), ("m.mrc", True, True)])
def test_orientation_of_a_delta(tmp_path, name, flip, turned):
    frames = np.zeros((5,) + SHAPE, np.uint8)
    frames[:, 3, 7] = 1
    stack = load_movie(_metadata(_write(tmp_path / name, frames)), _inputs(movie_flip_y=flip))
    assert torch.nonzero(stack.corrected(0)).tolist() == [[SHAPE[0] - 4 if turned else 3, 7]]


def test_eer_is_not_turned(tmp_path):
    path = tmp_path / "m.eer"
    path.write_bytes(eer_bytes([[(3 * 80 + 7, 0, 0)]] * 6, SHAPE))
    stack = load_movie(_metadata(path, n_frames=3, eer_grouping=2, eer_upsampling=1), _inputs())
    assert stack.n_frames == 3 and torch.nonzero(stack.corrected(0)).tolist() == [[3, 7]] and stack.corrected(0).max() == 2


@pytest.mark.parametrize("dtype, expected", [(np.uint8, torch.uint8), (np.int8, torch.int8), (np.int16, torch.int16),
                                             (np.uint16, torch.int16), (np.float32, torch.float32), (np.float16, torch.float16)])
def test_no_value_is_lost(tmp_path, dtype, expected):
    frames = _frames(dtype)
    frames[0, 0, 0] = 120 if dtype == np.int8 else 128
    stack = load_movie(_metadata(_write(tmp_path / "m.mrc", frames)), _inputs())
    assert stack.frames.dtype == expected
    np.testing.assert_array_equal(stack.frames.numpy(), frames)
    if dtype == np.uint16:
        frames[2, 1, 1] = 65535
        stack = load_movie(_metadata(_write(tmp_path / "m.mrc", frames)), _inputs())
        assert stack.frames.dtype == torch.int32
        np.testing.assert_array_equal(stack.frames.numpy(), frames)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", ["m.tif", "m.mrc"])
def test_threads_agree(tmp_path, name, threads):
    frames = _frames(n=9)
    stack = load_movie(_metadata(_write(tmp_path / name, frames), n_frames=9), _inputs(movie_flip_y=False), threads=threads)
    np.testing.assert_array_equal(stack.frames.numpy(), frames)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("n_frames, threads, bands", [(5, 4, 3), (8, 4, 1), (9, 8, 4), (5, 1, 1)])
def test_frames_are_divided_where_threads_would_wait_for_the_last_ones(tmp_path, monkeypatch, flip, n_frames, threads, bands):
    frames, path, parts = _frames(n=n_frames), tmp_path / "m.tif", []
    with tifffile.TiffWriter(path) as writer:
        for frame in frames:
            writer.write(frame, compression="lzw", photometric="minisblack", contiguous=False, rowsperstrip=5)
    sound = stack_module.sound_frame
    monkeypatch.setattr(stack_module, "sound_frame", lambda *part: parts.append(part[4]) or sound(*part))
    stack = load_movie(_metadata(path, n_frames=n_frames), _inputs(movie_flip_y=flip), threads=threads)
    np.testing.assert_array_equal(stack.frames.numpy(), frames[:, ::-1] if flip else frames)
    assert len(parts) == n_frames * bands


@pytest.mark.parametrize("first, last, start, n_aligned, expected", [(1, -1, 1, 9, range(0, 9)), (3, 5, 1, 9, range(2, 5)),
                                                                     (1, -1, 3, 7, range(2, 9)), (2, 4, 3, 6, range(3, 6))])
def test_frame_ranges(tmp_path, first, last, start, n_aligned, expected):
    frames = _frames(n=9)
    metadata = _metadata(_write(tmp_path / "m.mrc", frames), n_frames=n_aligned, start_frame=start)
    stack = load_movie(metadata, _inputs(first_frame=first, last_frame=last))
    np.testing.assert_array_equal(stack.frames.numpy(), frames[list(expected)])
    assert stack.first_frame == first - 1 and stack.n_frames == len(expected) and stack.pixel_angstrom == 0.9


def test_frame_faults(tmp_path):
    path = _write(tmp_path / "m.tif", _frames(n=5))
    with pytest.raises(MovieError, match="has 5 frames .* frames 1 to 6"):
        load_movie(_metadata(path, n_frames=6), _inputs())
    with pytest.raises(MovieError, match="has 5 frames .* frames 2 to 6"):
        load_movie(_metadata(path, n_frames=5, start_frame=2), _inputs())
    with pytest.raises(MovieError, match="80 x 64 px and its STAR file says 64 x 80 px"):
        load_movie(_metadata(path, size_yx=SHAPE[::-1]), _inputs())
    for first, last in ((1, 6), (6, -1)):
        with pytest.raises(MovieError, match="5 aligned frames"):
            load_movie(_metadata(path), _inputs(first_frame=first, last_frame=last))


def test_not_finite(tmp_path):
    frames = _frames(np.float32)
    frames[1, 2, 3] = np.nan
    with pytest.raises(MovieError, match="not finite"):
        load_movie(_metadata(_write(tmp_path / "m.mrc", frames)), _inputs())


def test_gain_is_multiplied_and_its_zeros_replaced(tmp_path):
    frames = _frames()
    gain = np.random.default_rng(5).uniform(0.8, 1.2, SHAPE).astype(np.float32)
    gain[10, 20] = 0
    (tmp_path / "g.mrc").write_bytes(mrc_bytes(gain[None]))
    stack = load_movie(_metadata(_write(tmp_path / "m.mrc", frames), gain_file=str(tmp_path / "g.mrc")), _inputs())
    frame = stack.corrected(2).numpy()
    good = gain > 0
    np.testing.assert_allclose(frame[good], (frames[2] * gain)[good], rtol=1e-6)
    near = (frames[2] * gain)[8:13, 18:23].ravel()
    assert stack.bad_yx.tolist() == [[10, 20]] and frame[10, 20] in np.delete(near, 12)
    np.testing.assert_array_equal(stack.frames.numpy(), frames)
    with pytest.raises(MovieError, match="rotation by 90 degrees would fit"):
        load_movie(_metadata(tmp_path / "m.mrc"), _inputs(gain=str(tmp_path / "g.mrc"), gain_rotation=1))


def test_gain_of_a_tiff_movie_follows_its_orientation(tmp_path):
    """A TIFF gain belongs to the rows of the file, turned or not; so the corrected frames are the same up to the turn."""
    frames, gain = _frames(), np.random.default_rng(5).uniform(0.8, 1.2, SHAPE).astype(np.float32)
    tifffile.imwrite(tmp_path / "g.tif", gain, photometric="minisblack")
    metadata = _metadata(_write(tmp_path / "m.tif", frames), gain_file=str(tmp_path / "g.tif"))
    for flip, expected in ((None, (frames[1] * gain)[::-1]), (False, frames[1] * gain)):
        np.testing.assert_allclose(load_movie(metadata, _inputs(movie_flip_y=flip)).corrected(1), expected, rtol=1e-6)


def test_hot_pixels_are_replaced_and_neighbours_untouched(tmp_path):
    frames = _frames(mean=9.0)
    clean = frames.copy()
    frames[:, 30, 40], frames[:, 12, 5], frames[:, 50, 70] = 255, 200, 0
    metadata = _metadata(_write(tmp_path / "m.mrc", frames), hot_pixels_xy=np.array([[5, 12], [500, 1]]))
    stack = load_movie(metadata, _inputs(hot_pixel_sigma=8.0))
    assert stack.bad_yx.tolist() == [[12, 5], [30, 40], [50, 70]]
    touched = np.zeros(SHAPE, bool)
    touched[tuple(stack.bad_yx.T)] = True
    for f in range(5):
        frame = stack.corrected(f).numpy()
        np.testing.assert_array_equal(frame[~touched], clean[f][~touched])
        assert (frame[touched] < 40).all()
    assert len(load_movie(_metadata(tmp_path / "m.mrc"), _inputs()).bad_yx) == 0   # switched off


def test_hot_pixel_coordinates_are_those_of_the_turned_frame(tmp_path):
    """STAR files count hot pixels in the frame of the coordinates, so after a TIFF was turned."""
    metadata = _metadata(_write(tmp_path / "m.tif", _frames()), hot_pixels_xy=np.array([[7, 3]]))
    stack = load_movie(metadata, _inputs())
    assert stack.bad_yx.tolist() == [[3, 7]]
    changed = stack.corrected(0).numpy() != _frames()[0][::-1]
    changed[3, 7] = False
    assert not changed.any()


def test_defect_file(tmp_path):
    (tmp_path / "d.txt").write_text("4 6 2 1\n")
    stack = load_movie(_metadata(_write(tmp_path / "m.mrc", _frames()), defect_file=str(tmp_path / "d.txt")), _inputs())
    assert stack.bad_yx.tolist() == [[6, 4], [6, 5]]


def test_replacement_does_not_depend_on_range_or_run(tmp_path):
    metadata = _metadata(_write(tmp_path / "m.mrc", _frames()), hot_pixels_xy=np.array([[7, 3], [9, 9]]))
    whole, part = load_movie(metadata, _inputs()), load_movie(metadata, _inputs(first_frame=3))
    assert torch.equal(whole.corrected(2), part.corrected(0)) and torch.equal(whole.corrected(2), whole.corrected(2))


def test_eer_grouping(tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "m.eer"
    path.write_bytes(eer_bytes([random_events(rng, SHAPE[0] * SHAPE[1], 50) for _ in range(13)], SHAPE))
    metadata = _metadata(path, n_frames=3, eer_grouping=4, eer_upsampling=1)
    upstream = load_movie(metadata, _inputs())
    finer = load_movie(metadata, _inputs(eer_grouping=2))
    assert upstream.n_frames == 3 and finer.n_frames == 6   # the 13th detector frame is left out by both
    assert torch.equal(finer.frames[0] + finer.frames[1], upstream.frames[0])
    doubled = load_movie(_metadata(path, n_frames=3, eer_grouping=4, eer_upsampling=2, size_yx=(128, 160)), _inputs())
    assert torch.equal(doubled.frames.view(3, 64, 2, 80, 2).sum((2, 4)).to(torch.uint8), upstream.frames)
    with pytest.raises(MovieError, match="EER grouping"):
        load_movie(_metadata(path, n_frames=3), _inputs())
    with pytest.raises(MovieError, match="3 frames .* 1 to 4"):
        load_movie(_metadata(path, n_frames=4, eer_grouping=4), _inputs())


TYPES = pytest.mark.parametrize("name, dtype", [("m.tif", np.uint8), ("m.mrc", np.uint16), ("m.mrc", np.int16), ("m.mrc", np.float32)])


def _movie_with_faults(path, dtype):
    """Seven of nine frames, a hot pixel in all, and a value beyond int16 where the type has such."""
    frames = _frames(dtype, n=9, mean=9.0)
    frames[:, 30, 40] = 250
    if dtype == np.uint16:
        frames[4, 1, 1] = 40000
    return _metadata(_write(path, frames), n_frames=7, start_frame=2)


@pytest.mark.parametrize("threads", [1, 3])
@TYPES
def test_a_movie_too_large_to_be_held_gives_the_same_frames(tmp_path, name, dtype, threads):
    metadata = _movie_with_faults(tmp_path / name, dtype)
    size = 7 * SHAPE[0] * SHAPE[1] * np.dtype(dtype).itemsize
    held, streamed = (load_movie(metadata, _inputs(hot_pixel_sigma=8.0), threads, held_bytes=most) for most in (size, size - 1))
    assert (held.held_bytes > 0, streamed.held_bytes, streamed.n_frames, streamed.shape_yx) == (True, 0, 7, SHAPE)
    assert held.bytes_per_px == streamed.bytes_per_px == np.dtype(dtype).itemsize
    np.testing.assert_array_equal(held.bad_yx, streamed.bad_yx)
    for f in (0, 1, 2, 6, 3, 0):                                        # in order and not
        assert torch.equal(held.corrected(f), streamed.corrected(f))


def test_frames_that_cannot_be_decoded_later_are_a_fault_of_the_movie(tmp_path):
    frames = _frames(np.float32)
    frames[3, 2, 2] = np.nan
    stack = load_movie(_metadata(_write(tmp_path / "m.mrc", frames)), _inputs(), held_bytes=0)
    assert torch.isfinite(stack.corrected(2)).all()
    with pytest.raises(MovieError, match="not finite"):
        stack.corrected(3)


def test_the_file_is_closed_with_the_movie(tmp_path):
    metadata = _metadata(_write(tmp_path / "m.mrc", _frames()))
    stack = load_movie(metadata, _inputs(), threads=2, held_bytes=0)
    reader = stack.frames._decode.args[0]
    stack.corrected(0)
    del stack
    assert reader._frames._file.closed


@pytest.mark.parametrize("held_bytes", [1 << 20, 0])
def test_packed_pixels_are_known_by_the_size_upstream_saw(tmp_path, held_bytes):
    frames = np.random.default_rng(0).integers(0, 16, (5,) + SHAPE).astype(np.uint8)
    path = _write(tmp_path / "m.tif", pack_nibbles(frames))
    stack = load_movie(_metadata(path), _inputs(), threads=2, held_bytes=held_bytes)
    assert (stack.shape_yx, stack.bytes_per_px) == (SHAPE, 1)
    for f in (0, 3):
        np.testing.assert_array_equal(stack.frames[f].numpy(), frames[f, ::-1])


@pytest.mark.parametrize("scratch, sigma", [(False, 8.0), (True, 8.0), (False, 0.0)])
def test_frames_of_one_value_are_told(tmp_path, caplog, scratch, sigma):
    frames = _frames(n=9, mean=4.0)
    frames[3], frames[5] = 0, 7
    path = _write(tmp_path / "m.tif", frames)
    place = dict(scratch=Scratch(1 << 30, str(tmp_path)), needed_again=True) if scratch else {}
    load_movie(_metadata(path, n_frames=8, start_frame=2), _inputs(hot_pixel_sigma=sigma), **place)
    assert "%s holds one value only in 2 of its frames (4, 6): leave" % path in caplog.text
    caplog.clear()
    load_movie(_metadata(path, n_frames=2, start_frame=7), _inputs(hot_pixel_sigma=sigma), **place)
    assert not caplog.text


def test_a_movie_that_was_hardly_exposed_is_told(tmp_path, caplog):
    path = _write(tmp_path / "m.mrc", _frames(n=5, mean=0.05))
    load_movie(_metadata(path, dose_per_frame_e_per_A2=0.3), _inputs(hot_pixel_sigma=8.0))              # 0.24 electrons per pixel
    assert not caplog.text
    load_movie(_metadata(path, dose_per_frame_e_per_A2=1.0), _inputs(hot_pixel_sigma=8.0))
    assert "m.mrc holds 0.24 counts per pixel where its dose makes 4.1 electrons" in caplog.text
    caplog.clear()
    load_movie(_metadata(_write(tmp_path / "m.mrc", _frames(np.float32, n=5, mean=0.05))), _inputs(hot_pixel_sigma=8.0))
    assert not caplog.text          # not counts


@pytest.mark.parametrize("upstream, grouping", [(4, 4), (4, 8), (4, 2)])
def test_the_dose_of_other_fractions_is_theirs(upstream, grouping):
    metadata = _metadata("m.eer", eer_grouping=upstream, dose_per_frame_e_per_A2=1.0, original_pixel_angstrom=1.0)
    assert doubts._electrons_per_px(metadata, 3, grouping) == 3 * grouping / upstream


@pytest.mark.parametrize("dtype, whole", [(np.uint8, True), (np.uint16, True), (np.float32, False)])
@pytest.mark.parametrize("bad", [False, True])
def test_frames_to_cut_hold_the_corrected_values(tmp_path, dtype, whole, bad):
    hot = np.array([[7, 3], [40, 60]]) if bad else None
    stack = load_movie(_metadata(_write(tmp_path / "m.tif", _frames(dtype)), hot_pixels_xy=hot), _inputs())
    recorded, frame = stack.frames.clone(), None
    for f in range(5):
        frame = stack.to_cut(f, out=frame)
        assert frame.is_floating_point() != whole and torch.equal(frame.to(torch.float32), stack.corrected(f))
    assert torch.equal(stack.frames, recorded)                          # what was recorded is not written to


def test_frames_to_cut_are_multiplied_by_the_gain(tmp_path):
    gain = np.linspace(0.5, 2.0, SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)
    (tmp_path / "gain.mrc").write_bytes(mrc_bytes(gain[None]))
    stack = load_movie(_metadata(_write(tmp_path / "m.mrc", _frames()), gain_file=str(tmp_path / "gain.mrc")), _inputs())
    assert torch.equal(stack.to_cut(1), stack.corrected(1)) and not torch.equal(stack.to_cut(1), stack.frames[1].float())
