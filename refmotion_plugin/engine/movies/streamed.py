"""Frames decoded when they are asked for: a movie too large to be held decoded in memory."""
import functools
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch

from .frames import sound_frame, torch_type
from .patience import patiently

READ_AHEAD = 4      # frames decoded ahead at most: each thread of more would hold one more frame


class StreamedFrames:
    """Stands in for a tensor (frame, H, W): ``frames[f]`` decodes frame ``f``; read in order, the next ones are decoded meanwhile.

    ``reader`` an open MovieReader, closed when this object is no more; ``first`` its frame that is frame 0 here; ``threads``: 1
    decodes nothing ahead; ``timeout`` seconds after which reading a frame is given up, 0: never. Raises MovieError for frames that cannot be decoded or hold values that are not finite.
    """

    def __init__(self, reader, first, n_frames, upside_down, threads=1, timeout=0):
        self.shape = torch.Size((n_frames,) + tuple(reader.shape_yx))
        self._decode = functools.partial(_decode_patiently, reader, first, upside_down, timeout)
        self._ahead = min(READ_AHEAD, threads if reader.concurrent else 1) if threads > 1 else 0
        self._pool = ThreadPoolExecutor(self._ahead, thread_name_prefix="frames") if self._ahead else None
        self._coming, self._under_way, self._lock = {}, set(), threading.Lock()
        weakref.finalize(self, _close, self._pool, reader, self._under_way)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, f):
        """Frame ``f`` (H, W) in a type torch computes with."""
        return torch.from_numpy(torch_type(self.raw(f)))

    def raw(self, f, rows=slice(None)):
        """Frame ``f`` (H, W) or some of its rows, numpy, in the file's type, turned as the convention says."""
        if not self._ahead:
            return self._decode(f)[rows]
        with self._lock:
            wanted = range(f, min(f + 1 + self._ahead, len(self)))
            self._coming = {i: self._coming.get(i) or self._begin(i) for i in wanted}
            coming = self._coming.pop(f)
        return coming.result()[rows]


    def _begin(self, f):
        future = self._pool.submit(self._decode, f)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future


def _decode_patiently(reader, first, upside_down, timeout, f):
    return patiently(lambda: _decode(reader, first + f, upside_down), timeout, "frame %d of movie %s" % (first + f + 1, reader.path))


def _decode(reader, index, upside_down):
    return sound_frame(reader, index, upside_down, np.empty(reader.shape_yx, reader.dtype))


def _close(pool, reader, under_way):
    """Close the reader once nothing reads from it; a reading that hangs is not waited for here."""
    if pool is not None:
        pool.shutdown(wait=False, cancel_futures=True)
    left = [future for future in under_way.copy() if not future.done()]
    if not left:
        reader.close()
        return
    threading.Thread(target=lambda: (wait(left), reader.close()), name="close movie", daemon=True).start()
