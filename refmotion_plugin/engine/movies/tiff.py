"""TIFF movies, page by page."""
import functools
import os
import zlib

import imagecodecs
import numpy as np
import tifffile

from refmotion_plugin.contract.errors import MovieError

from .libtiff import LZW, decode_lzw_strips
from .mrc import unpack_nibbles


def _inflate(data, out):
    """zlib data of ``out`` bytes; libdeflate is three times faster than zlib, which is more tolerant of odd lengths."""
    try:
        return imagecodecs.deflate_decode(data, out=out)
    except imagecodecs.DeflateError:
        return _inflate_patiently(data, out)


def _inflate_patiently(data, out):
    try:
        return zlib.decompressobj().decompress(data, out)       # no more than that, whatever damaged data promise
    except zlib.error as error:
        raise ValueError(str(error)) from None


def _unlzw(data, out):
    """LZW data of ``out`` bytes by libtiff: the codec of imagecodecs writes where it must not when they are damaged."""
    def fill(room):
        room[:] = data
        return True

    raw = decode_lzw_strips([len(data)], fill, (1, out), np.uint8, 1)
    if raw is None:
        raise ValueError("LZW codes end too early or make no sense")
    return raw.tobytes()


COMPRESSIONS = {1: None, 5: _unlzw, 8: _inflate, 32946: _inflate, 32773: imagecodecs.packbits_decode, 34926: imagecodecs.zstd_decode,
                50000: imagecodecs.zstd_decode}
LARGEST_RATIO = 35000       # of pixels to compressed data that a codec can reach: ZSTD has 128 KiB of one value in four bytes
DTYPES = ("uint8", "int8", "uint16", "int16", "float32")        # of movies


def read_pages(path):
    """All pages of a TIFF container whose chain of directories is complete.

    Returns (TiffFile, list of TiffPage). Raises MovieError when the file is not TIFF or the chain breaks off.
    """
    try:
        tif = tifffile.TiffFile(path)
    except Exception as error:      # tifffile answers damaged tags with any kind of error
        raise MovieError("movie %s cannot be read as TIFF (%s): check what it is, or copy it again" % (path, error)) from None
    try:
        pages = [tif.pages[i] for i in range(len(tif.pages))]
        tif.filehandle.seek(tif.pages.next_page_offset)
        ending = tif.filehandle.read(tif.tiff.offsetsize)
    except Exception as error:
        tif.close()
        raise MovieError("movie %s is truncated or damaged (%s): copy it again" % (path, error)) from None
    if not pages or len(ending) < tif.tiff.offsetsize or any(ending):
        tif.close()
        raise MovieError("movie %s is truncated: its chain of pages breaks off after page %d; copy it again" % (path, len(pages)))
    return tif, pages


def read_bytes(tif, offset, count, path, where):
    size = tif.filehandle.size          # a damaged count must not ask for memory
    inside = all(isinstance(n, int) and 0 <= n <= size for n in (offset, count))
    data = os.pread(tif.filehandle.fileno(), count, offset) if inside else b""  # no shared file position: threads need no lock
    if not count or len(data) < count:
        raise MovieError("movie %s is truncated in %s: %d of %d bytes are there; copy it again" % (path, where, len(data), count))
    return data


def read_strips(descriptor, offsets, lengths, room):
    """Strips one after the other into ``room``, neighbours of the file at once; False if some of it is not there."""
    offsets, lengths = np.asarray(offsets), np.asarray(lengths)
    apart = np.flatnonzero(offsets[1:] != offsets[:-1] + lengths[:-1]) + 1
    first, place = np.append(0, apart), 0
    for offset, size in zip(offsets[first].tolist(), np.add.reduceat(lengths, first).tolist()):
        if os.preadv(descriptor, [room[place:place + size]], offset) < size:
            return False
        place += size
    return True


def _whole_numbers(tag):
    """Values of a tag as int64 (n,), None if they are of another kind: movies of a strip per row have thousands."""
    try:
        values = np.asarray(tag)
    except ValueError:
        return None
    return values.astype(np.int64) if values.ndim == 1 and values.dtype.kind in "iu" else None


class TiffFrames:
    """Random access to the pages of a TIFF movie; ``frame`` may be called from several threads.

    Rows come in the order of the file. Segments are decoded here and not by tifffile, because a segment that is too short
    must be an error and never be padded.
    """

    concurrent = True

    def __init__(self, path, dtypes=DTYPES):
        self.path = path
        self._tif, self._pages = read_pages(path)
        try:
            self._check(dtypes)
        except MovieError:
            self.close()
            raise
        except Exception as error:      # tags of another kind than they should be
            self.close()
            raise MovieError("movie %s is damaged: its tags make no sense (%s); copy it again" % (path, error)) from None
        first = self._pages[0]
        self.n_frames, self.shape_yx, self.dtype = len(self._pages), first.shape, np.dtype(first.dtype)

    def _check(self, dtypes):
        first = self._pages[0]
        for number, page in enumerate(self._pages, 1):
            if len(page.shape) != 2 or page.dtype is None or np.dtype(page.dtype).name not in dtypes:
                raise MovieError("movie %s: page %d is %s of type %s, and grey images of %s are supported; convert it"
                                 % (self.path, number, "x".join(map(str, page.shape)), page.dtype, ", ".join(dtypes)))
            if page.shape != first.shape or page.dtype != first.dtype:
                raise MovieError("movie %s: page %d is %d x %d px of %s where page 1 is %d x %d px of %s; all frames must be alike"
                                 % (self.path, number, *page.shape[::-1], page.dtype, *first.shape[::-1], first.dtype))
            if int(page.compression) not in COMPRESSIONS or int(page.predictor) not in (1, 2, 3):
                raise MovieError("movie %s uses TIFF compression %s, which is not supported: convert it to LZW or deflate"
                                 % (self.path, getattr(page.compression, "name", page.compression)))
            if len(page.dataoffsets) != self._n_segments(page) or len(page.databytecounts) != len(page.dataoffsets):
                raise MovieError("movie %s is damaged: page %d has %d of its %d strips or tiles; copy it again"
                                 % (self.path, number, len(page.dataoffsets), self._n_segments(page)))
            size, stored = int(np.prod(page.shape, dtype=np.float64)) * np.dtype(page.dtype).itemsize, sum(page.databytecounts)
            if size > LARGEST_RATIO * (stored + 1024):
                raise MovieError("movie %s is damaged: page %d promises %d bytes of pixels and has %d compressed ones; copy it again"
                                 % (self.path, number, size, stored))
            if page.fillorder != 1:
                raise MovieError("movie %s has the bits of each byte in reverse order (FillOrder 2), which is not supported: convert it" % self.path)
            if page.bitspersample != 8 * np.dtype(page.dtype).itemsize:
                raise MovieError("movie %s has %d-bit pixels in a packing that is not supported: convert it to 8 or 16 bits"
                                 % (self.path, page.bitspersample))

    @staticmethod
    def _n_segments(page):
        height, width = page.shape
        return -(-height // page.tilelength) * -(-width // page.tilewidth) if page.is_tiled else -(-height // page.rowsperstrip)

    def bands(self, count):
        """Rows of a frame in ``count`` slices or fewer that can be decoded apart."""
        page, height = self._pages[0], self.shape_yx[0]
        if page.is_tiled:
            return [slice(0, height)]
        step = page.rowsperstrip * -(-len(page.dataoffsets) // count)
        return [slice(top, min(top + step, height)) for top in range(0, height, step)]

    def frame(self, index, out=None, rows=None):
        """Page ``index`` (H, W), 0-based, or some ``rows`` of it as :meth:`bands` gives them; rows as in the file; in ``out``, if given,
        unless it had to be another array."""
        page, rows = self._pages[index], rows or slice(0, self.shape_yx[0])
        strips = None if page.is_tiled else slice(rows.start // page.rowsperstrip, -(-rows.stop // page.rowsperstrip))
        if strips and (rows.start % page.rowsperstrip or rows.stop != min(strips.stop * page.rowsperstrip, self.shape_yx[0])):
            return self.frame(index)[rows]          # a page of other strips than the first
        shape = rows.stop - rows.start, self.shape_yx[1]
        image = self._at_once(page, out, strips, shape) if int(page.compression) == LZW and strips else None
        if image is not None:
            return image
        numbers = range(len(page.dataoffsets))[strips or slice(None)]
        if strips and len(numbers) == 1:
            return self._segment(page, index, numbers[0], shape)
        out = np.empty(shape, self.dtype) if out is None else out
        for number in numbers:
            top, left, box = self._place(page, number)
            target = out[top - rows.start:top - rows.start + box[0], left:left + box[1]]
            target[...] = self._segment(page, index, number, box)[:target.shape[0], :target.shape[1]]
        return out

    def _at_once(self, page, out, strips, shape):
        """LZW strips of a frame at once; None if they have to be decoded one by one."""
        size = self._tif.filehandle.size
        offsets, counts = (_whole_numbers(tag[strips]) for tag in (page.dataoffsets, page.databytecounts))
        sound = offsets is not None and counts is not None and offsets.min() >= 0 and counts.min() >= 1
        if not sound or max(offsets.max(), counts.max()) > size or counts.sum() > size:
            return None         # strip by strip it is said what is wrong
        fill = functools.partial(read_strips, self._tif.filehandle.fileno(), offsets, counts)
        return decode_lzw_strips(counts, fill, shape, self.dtype, page.rowsperstrip, int(page.predictor), self._tif.byteorder, out)

    def _place(self, page, number):
        """First row, first column and (height, width) of a strip or tile."""
        height, width = self.shape_yx
        if page.is_tiled:
            per_row = -(-width // page.tilewidth)
            return number // per_row * page.tilelength, number % per_row * page.tilewidth, (page.tilelength, page.tilewidth)
        top = number * page.rowsperstrip
        return top, 0, (min(page.rowsperstrip, height - top), width)

    def _segment(self, page, index, number, box):
        return self._decompress(page, self._bytes(page, index, number), box, "frame %d" % (index + 1))

    def _bytes(self, page, index, number):
        return read_bytes(self._tif, page.dataoffsets[number], page.databytecounts[number], self.path, "frame %d" % (index + 1))

    def _decompress(self, page, data, box, where):
        size = box[0] * box[1] * self.dtype.itemsize
        decode = COMPRESSIONS[int(page.compression)]
        try:
            raw = data if decode is None else decode(data, out=size)
        except (RuntimeError, ValueError) as error:   # the codecs' own errors derive from RuntimeError
            raise MovieError("movie %s is damaged in %s (%s): copy it again" % (self.path, where, error)) from None
        if len(raw) < size:
            raise MovieError("movie %s is damaged in %s: %d of %d bytes could be decoded; copy it again"
                             % (self.path, where, len(raw), size))
        pixels = np.frombuffer(raw, self.dtype.newbyteorder(self._tif.byteorder), count=box[0] * box[1]).reshape(box)
        if int(page.predictor) == 3:   # bytes of floats stored apart, in an order of their own
            return imagecodecs.floatpred_decode(pixels, axis=-1)
        pixels = pixels.astype(self.dtype, copy=False)
        return imagecodecs.delta_decode(pixels, axis=-1) if int(page.predictor) == 2 else pixels

    def close(self):
        """Close the file."""
        self._tif.close()


class PackedTiffFrames:
    """TIFF movies of SerialEM and IMOD with two pixels in a byte, which no tag tells: only the movie's width does, twice that of the pages."""

    concurrent = True

    def __init__(self, pages):
        self._pages, self.n_frames = pages, pages.n_frames
        self.shape_yx, self.dtype = (pages.shape_yx[0], 2 * pages.shape_yx[1]), np.dtype(np.uint8)
        self.bands, self.close = pages.bands, pages.close

    def frame(self, index, out=None, rows=None):
        """Page ``index`` (H, W), 0-based, or some ``rows`` of it; never in ``out``."""
        return unpack_nibbles(self._pages.frame(index, rows=rows))


def open_tiff(path, size_yx=None):
    """Frames of a TIFF movie; ``size_yx`` of them, if that is known."""
    pages = TiffFrames(path)
    height, width = pages.shape_yx
    return PackedTiffFrames(pages) if pages.dtype == np.uint8 and size_yx is not None and tuple(size_yx) == (height, 2 * width) else pages
