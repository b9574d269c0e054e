"""Reading files that may be anything: no pipes or devices, nothing endless, no pickles, no arrays larger than their file."""
import errno
import os
import stat
import zipfile
from io import BytesIO

import numpy as np

MOST_TEXT_BYTES = 8 * 2 ** 30       # a STAR file of ten million particles has half of it
MOST_ARRAY_BYTES = 2 ** 30          # of all arrays in one NPZ file


def check_regular(path, most_bytes=None):
    """Raise OSError unless ``path`` is a file with content of its own (a pipe would be waited for, a device has no end) of at most so many bytes."""
    status = os.stat(str(path))
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "Is a directory", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if most_bytes is not None and status.st_size > most_bytes:
        raise OSError(errno.EFBIG, "larger than %d bytes" % most_bytes, str(path))


def read_text(path, errors="strict", most_bytes=MOST_TEXT_BYTES):
    """Text of a regular file in UTF-8, without the mark that some editors put first. Raises OSError or UnicodeDecodeError."""
    check_regular(path, most_bytes)
    with open(str(path), encoding="utf-8-sig", errors=errors) as file:
        return file.read()


def read_array(file, n_bytes):
    """Array of the .npy data at the position of a binary ``file``, which holds ``n_bytes`` of it.

    Raises ValueError for pickled objects and for a header that promises another size, before memory is asked for.
    """
    begin = file.tell()
    version = np.lib.format.read_magic(file)
    header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if header is None:
        raise ValueError("version %d.%d of the format is not known" % version)
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are not read")
    promised, there = int(dtype.itemsize), n_bytes - (file.tell() - begin)
    for n in shape:
        promised *= int(n)
    if promised != there or min(shape, default=0) < 0:
        raise ValueError("its header promises %d bytes and %d are there" % (promised, there))
    return np.frombuffer(file.read(promised), dtype).reshape(shape, order="F" if fortran else "C").copy()


def read_arrays(path):
    """{name: array} of an NPZ file. Raises ValueError with the reason for anything that is not one."""
    try:
        check_regular(path)
        with zipfile.ZipFile(str(path)) as archive:
            members = archive.infolist()
            total = sum(m.file_size for m in members)
            if total > MOST_ARRAY_BYTES:
                raise ValueError("its arrays would take %d bytes" % total)
            return {_name(m): _member(archive, m) for m in members}
    except Exception as error:      # NumPy and zipfile answer damaged bytes with a dozen kinds of errors, from zlib's to the tokenizer's
        raise ValueError(str(error).split("\n")[0][:200] or type(error).__name__) from None


def _name(member):
    return member.filename[:-4] if member.filename.endswith(".npy") else member.filename


def _member(archive, member):
    data = archive.read(member)
    if len(data) != member.file_size:
        raise ValueError("%s is cut off" % member.filename)
    return read_array(BytesIO(data), len(data))
