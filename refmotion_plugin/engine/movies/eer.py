"""EER movies (TIFF containers of electron events), fraction by fraction.

Each detector frame is a run-length code over the sensor's pixels: so many pixels without an electron, then one electron
with its position inside the pixel in quarters (two bits each for x and y, lowest bits first, the upper bit inverted).
"""
import imagecodecs
import numpy as np

from refmotion_plugin.contract.errors import MovieError

from .tiff import read_bytes, read_pages

PROTOTYPE = 65000                                              # every code is 12 bits wide, overflow codes too
EER_BITS = {PROTOTYPE: (8, 2, 2), 65001: (7, 2, 2), 65002: None}   # (skip, horizontal, vertical) bits; None: in tags
EER_BIT_TAGS = ((65007, 7), (65008, 2), (65009, 2))


class EerFrames:
    """Random access to the fractions of an EER movie; ``frame`` may be called from several threads.

    ``grouping`` detector frames are summed into a fraction and frames that do not fill the last fraction are dropped, as
    RELION does. ``upsampling`` 1, 2 or 4 renders each electron as one count on a grid that much finer than the sensor.
    The container's final images, if any, are not events and are left out.
    """

    concurrent = True

    def __init__(self, path, grouping, upsampling):
        self.path, self.grouping = path, int(grouping or 1)
        if upsampling not in (1, 2, 4):
            raise MovieError("EER upsampling %s asked for movie %s is not possible: use 1, 2 or 4" % (upsampling, path))
        self._tif, pages = read_pages(path)
        try:
            self._check(pages, path, upsampling)
        except MovieError:
            self.close()
            raise
        except Exception as error:      # tags of another kind than they should be
            self.close()
            raise MovieError("movie %s is damaged: its tags make no sense (%s); copy it again" % (path, error)) from None

    def _check(self, pages, path, upsampling):
        self._pages = [p for p in pages if int(p.compression) in EER_BITS]
        if not self._pages:
            raise MovieError("movie %s holds no electron events: check that it is an EER file" % path)
        self._superres = {1: 0, 2: 1, 4: 2}[upsampling]
        first = self._pages[0]
        self._prototype = int(first.compression) == PROTOTYPE
        self.n_detector_frames = len(self._pages)
        self.n_frames = self.n_detector_frames // self.grouping
        self.shape_yx = (int(first.imagelength) * upsampling, int(first.imagewidth) * upsampling)        # several numbers, in a damaged file, are none
        self.dtype = np.dtype(np.uint8 if self.grouping < 256 else np.uint16)   # at most one electron per pixel and frame
        self._bits = EER_BITS[int(first.compression)] or tuple(first.tags.valueof(t, d) for t, d in EER_BIT_TAGS)
        if not (self._bits[0] in range(1, 13) and all(bits in range(1, 5) for bits in self._bits[1:])):
            raise MovieError("movie %s says its events have %s bits, which cannot be: copy it again" % (path, " + ".join(map(str, self._bits))))
        if not self.n_frames:
            raise MovieError("movie %s has %d detector frames, fewer than the %d of one fraction: lower the EER grouping"
                             % (path, self.n_detector_frames, self.grouping))

    def frame(self, index, out=None):
        """Fraction ``index`` (H, W), 0-based, rows as in the file; in ``out``, if given."""
        out = np.empty(self.shape_yx, self.dtype) if out is None else out
        out[...] = 0
        for number in range(index * self.grouping, (index + 1) * self.grouping):
            page = self._pages[number]
            where = "detector frame %d" % (number + 1)
            data = b"".join(read_bytes(self._tif, offset, count, self.path, where)
                            for offset, count in zip(page.dataoffsets, page.databytecounts))
            try:
                self._add_events(data, out)
            except (RuntimeError, ValueError) as error:
                raise MovieError("movie %s is damaged in %s (%s): copy it again" % (self.path, where, error)) from None
        return out

    def _add_events(self, data, out):
        if self._prototype:
            add_prototype_events(data, out, 1 << self._superres)
            return
        if len(data) % 2:
            data += b"\xff"   # the decoder wants whole 16-bit words; ones are never an event
        imagecodecs.eer_decode(data, self.shape_yx, *self._bits, superres=self._superres, out=out)   # adds to out

    def close(self):
        """Close the file."""
        self._tif.close()


def add_prototype_events(data, out, upsampling):
    """Add the electrons of one detector frame in the first, 8-bit run-length code (compression 65000) to ``out``.

    imagecodecs misreads this code: a full run (255) is followed by four position bits that mean nothing.

    Parameters: ``data`` bytes; ``out`` integer array (H, W), the sensor's grid times ``upsampling`` (1, 2 or 4).
    Raises ValueError when the code ends before the last pixel.
    """
    width = out.shape[1] // upsampling
    n_pixels = out.size // upsampling ** 2
    triples = np.frombuffer(data, np.uint8)[:len(data) // 3 * 3].reshape(-1, 3).astype(np.int64)
    last = int.from_bytes(data[len(triples) * 3:], "little") if len(data) % 3 == 2 else None   # 16 bits hold one more code
    code = np.stack([triples[:, 0] | (triples[:, 1] & 15) << 8, triples[:, 1] >> 4 | triples[:, 2] << 4], axis=1).reshape(-1)
    code = code if last is None else np.append(code, last & 4095)
    run, electron = code & 255, (code & 255) < 255
    end = np.cumsum(run + electron)
    if not len(end) or end[-1] < n_pixels:
        raise ValueError("the events end at pixel %d of %d" % (end[-1] if len(end) else 0, n_pixels))
    real = electron & (end <= n_pixels)
    pixel, quarter = end[real] - 1, code[real] >> 8
    fine_x, fine_y = ((q ^ 2) * upsampling // 4 for q in (quarter & 3, quarter >> 2))
    out[pixel // width * upsampling + fine_y, pixel % width * upsampling + fine_x] += 1   # a pixel at most once: += is safe
