"""STAR, TIFF and MRC files as microscopes and RELION write them."""
from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import tifffile


def write_star(path: Path, blocks: dict[str, dict]) -> None:
    """Write RELION 3.1 blocks: name -> {column: scalar} (a list of items) or {column: sequence} (a table)."""
    lines = []
    for name, columns in blocks.items():
        lines += ["", "# version 30001", "", f"data_{name}", ""]
        values = list(columns.values())
        if np.ndim(values[0]) == 0:
            lines += [f"_{key:<40} {_text(value)}" for key, value in columns.items()]
        else:
            lines += ["loop_ "] + [f"_{key} #{i} " for i, key in enumerate(columns, 1)]
            lines += [" ".join(_text(v).rjust(12) for v in row) + " " for row in zip(*values)]
        lines.append(" ")
    path.write_text("\n".join(lines) + "\n")


def _text(value) -> str:
    return f"{value:.6f}" if isinstance(value, (float, np.floating)) else str(value)


def write_mrc(path: Path, data: np.ndarray, pixel_angstrom: float, volume: bool = False) -> None:
    """Write an image, a stack or (``volume``) a map with its voxel size."""
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
        if data.ndim == 3 and not volume:
            file.set_image_stack()
        file.voxel_size = pixel_angstrom


class MovieWriter:
    """Writes frames given in RELION's row order; ``TIFF`` rows are stored the other way up.

    RELION, IMOD and MotionCor turn a TIFF upside down on reading and an MRC
    not, so coordinates count rows from the last row of a TIFF.
    """

    def __init__(self, path: Path, file_format: str, shape: tuple[int, int, int], pixel_angstrom: float) -> None:
        self.path, self.format, self.shape, self.pixel_angstrom = path, file_format, shape, pixel_angstrom
        self._index = 0
        if file_format.startswith("tiff"):
            self._file = tifffile.TiffWriter(path)
        else:
            self._stack = np.empty(self._stored_shape(), self._dtype())

    def add(self, frame: np.ndarray) -> None:
        """Append one frame of counts (rows, columns)."""
        if self.format.startswith("tiff"):
            method = "lzw" if self.format == "tiff-lzw" else "adobe_deflate"
            options = {} if method == "lzw" else {"compressionargs": {"level": 1}}
            self._file.write(frame.astype(np.uint8)[::-1], compression=method, contiguous=False, metadata=None,
                             photometric="minisblack", rowsperstrip=64, **options)
        elif self.format == "mrc-4bit":
            nibbles = np.minimum(frame, 15).astype(np.uint8)
            self._stack[self._index] = nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)
        else:
            self._stack[self._index] = frame
        self._index += 1

    def close(self) -> None:
        """Finish the file."""
        if self.format.startswith("tiff"):
            self._file.close()
            return
        write_mrc(self.path, self._stack.view(np.int8) if self.format == "mrc-4bit" else self._stack,
                  self.pixel_angstrom)
        if self.format == "mrc-4bit":
            self._patch_header_to_mode_101()

    def _dtype(self):
        return {"mrc": np.int8, "mrc-uint16": np.uint16, "mrc-float": np.float32, "mrc-4bit": np.uint8}[self.format]

    def _stored_shape(self):
        frames, height, width = self.shape
        return (frames, height, width // 2) if self.format == "mrc-4bit" else self.shape

    def _patch_header_to_mode_101(self) -> None:
        width = self.shape[2]
        header = np.memmap(self.path, dtype="<i4", mode="r+", shape=(256,))
        header[0], header[3], header[7] = width, 101, width  # nx, mode, mx; two px per byte, low nibble first
        header.view("<f4")[10] = width * self.pixel_angstrom
        header.flush()
