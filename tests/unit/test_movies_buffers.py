"""Blocks of memory that are used again."""
import contextlib
import gc
import logging
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refmotion_plugin.engine.movies import buffers
from refmotion_plugin.engine.movies.buffers import block_array
from refmotion_plugin.engine.stages.memory import release


@pytest.fixture(autouse=True)
def none_spare(monkeypatch):
    monkeypatch.setattr(buffers, "_spare", {})


def address(array):
    return array.__array_interface__["data"][0]


def test_the_next_array_of_the_same_purpose_gets_the_block():
    first = block_array((3, 100, 100), np.uint8, "frames")
    place, view = address(first), first[1:].view(np.int8)
    first[...] = 7
    del first
    other = block_array((3, 100, 100), np.uint8, "frames")
    assert address(other) != place and (view == 7).all()            # a view is still there: the block is not spare
    del view
    gc.collect()
    assert address(block_array((90, 300), np.uint8, "frames")) == place
    gc.collect()
    assert address(block_array((3, 100, 100), np.uint8, "spectra")) != place


def test_much_larger_blocks_are_given_back():
    place = address(block_array((1000, 1000), np.float32, "frames"))
    gc.collect()
    assert buffers._spare["frames"].size == 4000000 and place
    kept = block_array((10, 10), np.float32, "frames")
    assert kept.shape == (10, 10) and "frames" not in buffers._spare
    assert block_array((0, 5), np.int16, "frames").size == 0


def test_a_block_that_cannot_be_had_is_a_lack_of_memory():
    with pytest.raises(MemoryError, match="for frames"):
        block_array((1 << 62,), np.uint8, "frames")


def test_spare_blocks_are_freed_on_request():
    held = block_array((100, 100), np.uint8, "spectra")
    held[...] = 7
    place = address(block_array((100, 100), np.uint8, "frames"))
    gc.collect()
    assert buffers._spare["frames"].address == place
    release("cpu")
    assert not buffers._spare and (held == 7).all()         # what is in use stays


def test_pinning_is_asked_by_a_thread_of_its_own_on_the_gpu_that_copies(monkeypatch, caplog):
    """CUDA keeps what it refused as the asking thread's last error, and makes a context on whatever GPU is that thread's."""
    asked, current = [], []

    @contextlib.contextmanager
    def device(which):
        current.append(which)
        yield
        current.pop()

    runtime = SimpleNamespace(cudaHostRegister=lambda *of: asked.append((threading.get_ident(), list(current))) or 2, cudaHostUnregister=lambda address: 0)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "device", device)
    with caplog.at_level(logging.INFO):
        array = block_array((77, 1000), np.uint8, "a pinned purpose", torch.device("cuda:1"))
    assert array.shape == (77, 1000) and "error [2]" in caplog.text
    (thread, devices), = asked
    assert thread != threading.get_ident() and devices == [torch.device("cuda:1")]
