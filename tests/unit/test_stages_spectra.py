"""Spectra of patches: a few at a time, all at once, kept or made again, cut from whole numbers or from floats: the same."""
from types import SimpleNamespace

import pytest
import torch

from refmotion_plugin.engine.maths import fourier
from refmotion_plugin.engine.maths.blocks import frame_blocks
from refmotion_plugin.engine.maths.fourier import FourierGrid, cache_parts, crop_half_spectrum
from refmotion_plugin.engine.maths.lanes import SHARED, set_lanes
from refmotion_plugin.engine.stages.patches import Cut, PatchSpectra

SIZE, FRAMES, PARTICLES = 16, 3, 7
GRID = FourierGrid(SIZE, 1.0, 12)


@pytest.fixture
def cut():
    return Cut(torch.randint(-4, 40, (PARTICLES, FRAMES, 2), generator=torch.Generator().manual_seed(2)), None)


def stack(kind):
    frames = torch.randint(0, 9, (FRAMES, 48, 48), generator=torch.Generator().manual_seed(3)).to(kind)
    return SimpleNamespace(to_cut=lambda f, device, out=None: frames[f], expect=lambda f, device: None)


@pytest.mark.parametrize("at_a_time", [1, 3, 7, 20])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_parts_are_the_whole(cut, at_a_time, kind):
    whole = PatchSpectra(stack(torch.float32), cut, GRID, torch.device("cpu"))
    spectra = PatchSpectra(stack(kind), cut, GRID, torch.device("cpu"), 10 ** 9, at_a_time)
    for f in range(FRAMES):
        parts = spectra.each_part(f, lambda part, spectrum: (part, spectrum))
        assert [i for part, _ in parts for i in range(PARTICLES)[part]] == list(range(PARTICLES))
        joined = torch.cat([spectrum for _, spectrum in parts])
        assert joined.shape == (PARTICLES,) + GRID.shape
        torch.testing.assert_close(joined, whole(f), rtol=1e-5, atol=1e-4)
        first = torch.view_as_real(spectra(f)[:])
        torch.testing.assert_close(first, torch.view_as_real(whole(f)), rtol=2 ** -8, atol=1e-4)      # bfloat16 has 8 bits
        assert torch.equal(first, torch.view_as_real(spectra(f)[:]))


def test_threads_share_what_may_be_transformed_at_a_time(cut):
    """Memory is planned for so many patches, whoever has them."""
    set_lanes(3)
    spectra = PatchSpectra(stack(torch.uint8), cut, GRID, torch.device("cpu"), None, 6)
    assert spectra.each_part(0, lambda part, spectrum: len(spectrum)) == [2, 2, 2, 1]


@pytest.mark.parametrize("kept, together, expected", [(3, 3, [[0, 1, 2]]), (3, 2, [[0, 1], [2]]), (2, 3, [[0], [1], [2]]), (2, 2, [[0], [1], [2]]),
                                                      (0, 2, [[0], [1], [2]]), (3, 1, [[0], [1], [2]])])
def test_blocks_of_frames_are_the_frames(cut, kept, together, expected):
    """Several at once only where all of them are kept; each frame is cut and transformed once."""
    frame_bytes, cuts = 4 * PARTICLES * GRID.shape[0] * GRID.shape[1], []
    spectra = PatchSpectra(stack(torch.uint8), cut, GRID, torch.device("cpu"), kept * frame_bytes, together=together)
    each = spectra.each_part
    spectra.each_part = lambda f, use: cuts.append(f) or each(f, use)
    alone = PatchSpectra(stack(torch.uint8), cut, GRID, torch.device("cpu"), 10 ** 9)
    found = []
    spectra(2)                                  # asked for first, as frames are whose noise is measured: it has the first place
    for block, several in frame_blocks(spectra, range(FRAMES)):
        found.append(block)
        for rows in (slice(None), slice(2, 5), torch.tensor([4, 1])):
            assert several[rows].shape[0] == len(block)
            for f, one in zip(block, several[rows]):
                assert torch.equal(torch.view_as_real(one), torch.view_as_real(alone(f)[rows]))
    assert found == expected and sorted(cuts) == list(range(FRAMES)) + [2] * (kept == 0)           # 2 twice, if it was not kept


def test_a_spectrum_is_that_of_its_patch(cut):
    frame = stack(torch.float32).to_cut(1, None)
    y, x = next((y, x) for y, x in cut.corner_yx[:, 1].tolist() if 0 <= y <= 32 and 0 <= x <= 32)
    p = cut.corner_yx[:, 1].tolist().index([y, x])
    expected = crop_half_spectrum(torch.fft.rfft2(frame[y:y + SIZE, x:x + SIZE]), 12)
    torch.testing.assert_close(PatchSpectra(stack(torch.uint8), cut, GRID, torch.device("cpu"))(1)[p], expected)


def test_parts_for_the_cache_cover_all_and_do_not_depend_on_memory(monkeypatch):
    most, most_shared = fourier.CACHE_BYTES // 60000, SHARED * fourier.CACHE_BYTES // 60000
    for threads in (1, 3):
        monkeypatch.setattr(fourier, "lanes", lambda: threads)
        for count in (1, 2, 17, 100, 1000):
            parts = cache_parts(count, 60000, "cpu")
            assert [i for part in parts for i in range(count)[part]] == list(range(count))
            assert max(part.stop - part.start for part in parts) == min(count, most if threads == 1 else max(2, min(most_shared, -(-count // 3))))
    assert len(cache_parts(5, 10 ** 9, "cpu")) == 3 and cache_parts(0, 100, "cpu") == []
    assert cache_parts(100, 60000, "cuda") == [slice(0, 100)]
