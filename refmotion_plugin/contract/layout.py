"""Every path of a job, writing that is whole or not at all, and done markers that say what a result was made of."""
import contextlib
import errno
import hashlib
import json
import os
import socket
import tempfile
from pathlib import Path

import numpy as np

from .errors import InputError
from .processes import start_of
from .reading import read_text
from .spec import SCHEMA

STAGES = ("align", "weigh", "polish")
TEMPORARY = ".refmotion-"           # begins the names of files that are being written; host and process follow


class JobLayout:
    """Paths of the job in ``folder``. Nothing else in the project joins such names."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.job = self.folder / "job.json"
        self.status = self.folder / "status.jsonl"
        self.progress = self.folder / "progress.json"
        self.log = self.folder / "engine.log"
        self.lock = self.folder / "running.lock"
        self.weights = self.folder / "weights.npz"
        self.fcc_total = self.folder / "fcc.npz"
        self.hyperparameters = self.folder / "hyperparameters.json"
        self.search = self.folder / "search.json"
        self.search_journal = self.folder / "search.jsonl"
        self.search_done = self.folder / "search.done.json"
        self.verdict = self.folder / "verdict.json"
        self.reconstruction = self.folder / "reconstruction.json"
        self.left_out = self.folder / "left_out_particles.star"
        self.report = self.folder / "report.html"
        self.figures = self.folder / "figures"
        self.amplitudes = self.folder / "amplitudes.json"
        self.calibrate_done = self.folder / "calibrate.done.json"
        self.fit_done = self.folder / "fit.done.json"
        self.weigh_done = self.folder / "weigh.done.json"
        self.preflight_done = self.folder / "preflight.done.json"

    def movie(self, key):
        """Folder of one movie; ``key`` is ``MovieMetadata.key``."""
        return self.folder / "movies" / key

    def trajectories(self, key):
        """Trajectories of one movie."""
        return self.movie(key) / "trajectories.npz"

    def thumbnail(self, key):
        """Small average of one movie, for the eye."""
        return self.movie(key) / "thumbnail.npz"

    def fcc(self, key):
        """FCC sums of one movie."""
        return self.movie(key) / "fcc.npz"

    def judged(self, key):
        """How well one movie's particles agree with the opposite half-map along their motion and the input motion."""
        return self.movie(key) / "judged.npz"

    def polished(self, key, reference=0, n_references=1):
        """Image stack of one movie's particles of one reference."""
        return self.movie(key) / ("polished%s.mrcs" % _suffix(reference, n_references))

    def along_input(self, key, reference=0, n_references=1):
        """The same particles summed along the input motion with the standard exposure curve, to compare with."""
        return along_input_beside(self.polished(key, reference, n_references))

    def tracks(self, key):
        """RELION's track file of one movie."""
        return self.movie(key) / (key + "_tracks.star")

    def done(self, key, stage):
        """Done marker of one movie and stage."""
        return self.movie(key) / (stage + ".done.json")

    def particles(self, reference=0, n_references=1):
        """Particle STAR file of one reference: particles.star, or particles_1.star ... for several."""
        return self.folder / ("particles%s.star" % _suffix(reference, n_references))

    def bfactors(self, group=0):
        """B-factors per frame as RELION writes them; further groups (0-based) get a number."""
        return self.folder / ("bfactors.star" if group == 0 else "bfactors_%d.star" % (group + 1))


def along_input_beside(polished):
    """Path of the stack made along the input motion that belongs to a polished one."""
    polished = Path(polished)
    return polished.with_name(polished.name.replace("polished", "input_motion", 1))


def _suffix(reference, n_references):
    return "" if n_references == 1 else "_%d" % (reference + 1)


@contextlib.contextmanager
def atomic_path(path, lasting=True):
    """Give a temporary path in the folder of ``path``; after the block it is synced to disk, if it is to survive a power cut, and renamed to ``path``.

    On an error nothing is left behind and an earlier file stays as it was. Raises InputError when the disk is full or
    the folder cannot be written.
    """
    path = Path(path)
    name = _temporary_beside(path)
    try:
        yield Path(name)
        if lasting:
            _sync(name)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, str(path))
        if lasting:
            _sync(str(path.parent))
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise InputError("no space left on disk while writing %s: free some and run the same command again, "
                             "what is finished is kept" % path) from error
        raise


def _temporary_beside(path):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="%s%s-%d-" % (TEMPORARY, socket.gethostname(), os.getpid()), suffix=path.suffix, dir=str(path.parent))
    except OSError as error:
        raise InputError("%s cannot be written (%s): choose a folder on a disk with space that you may write to"
                         % (path, error.strerror)) from error
    os.close(handle)
    return name


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(name):
    """Have a file, or the names in a folder, on the disk itself: a done marker must not survive a power cut that its results do not."""
    handle = os.open(name, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):        # file systems that cannot sync folders
            raise
    finally:
        os.close(handle)


def remove_leftovers(folder):
    """Remove half-written files of processes that were killed below a folder; returns how many. Those of living ones on this machine stay."""
    own, count = "%s%s-" % (TEMPORARY, socket.gethostname()), 0
    for path in Path(folder).rglob(TEMPORARY + "*"):
        process = path.name[len(own):].split("-")[0] if path.name.startswith(own) else ""
        if not process.isdigit() or start_of(int(process)) is None:
            with contextlib.suppress(OSError):
                path.unlink()
                count += 1
    return count


@contextlib.contextmanager
def atomic_write(path, mode="wb", lasting=True):
    """Open file for writing that becomes ``path`` only when the block ends without an error; ``lasting`` as for :func:`atomic_path`."""
    with atomic_path(path, lasting) as temporary:
        with open(str(temporary), mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file


def located(path, beside, other_than=None):
    """``path`` as it is if it exists from here, else seen from the nearest folder above the file ``beside`` where it does.

    RELION's paths start at the project's folder; this finds them when the program runs elsewhere. A path found nowhere
    is returned unchanged, for the message of whoever opens it. None stays None. The file ``other_than`` is not meant.
    """
    if path is None or os.path.exists(str(path)):
        return path
    for folder in Path(os.path.abspath(str(beside))).parents:
        if (folder / path).exists() and (other_than is None or folder / path != Path(os.path.abspath(str(other_than)))):
            return str(folder / path)
    return path


def write_json(path, data, lasting=True):
    """Write ``data`` as indented JSON, atomically; ``lasting`` as for :func:`atomic_path`."""
    with atomic_write(path, "w", lasting) as file:
        json.dump(data, file, indent=2)
        file.write("\n")


def read_json(path):
    """Data of a JSON file, or None if there is none or it is not whole."""
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None


def read_object(path):
    """The dict that a JSON file holds, or an empty one if there is none, it is not whole, or it holds something else."""
    data = read_json(path)
    return data if isinstance(data, dict) else {}


def file_stamp(path):
    """Name, size and modification time of a file (not its folder, which depends on where a program runs); None for no path."""
    if path is None:
        return None
    try:
        status = os.stat(str(path))
    except OSError:
        return [os.path.basename(str(path)), None, None]
    return [os.path.basename(str(path)), status.st_size, status.st_mtime_ns]


def content_hash(path):
    """SHA-256 of a file's content, or None if there is no such file."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def particles_hash(table):
    """SHA-256 of all values of a ParticleTable."""
    digest = hashlib.sha256()
    for name in sorted(vars(table)):
        array = np.ascontiguousarray(getattr(table, name))
        text = "\0".join(array.tolist()).encode() if array.dtype.kind in "OU" else array.tobytes()
        digest.update(("%s %s " % (name, array.shape)).encode() + text)
    return digest.hexdigest()


def fingerprint(stage, spec, engine_version, **made_of):
    """Hash of all that decides a stage's result.

    ``spec`` contributes the parts this stage reads (never ``compute``, which changes no result); ``made_of`` holds what
    else it was made of, as JSON-able values: file stamps, hashes of particles, prior and weights, earlier fingerprints.
    """
    used = spec.model_dump(mode="json", include={"alignment": True})
    used["inputs"] = spec.inputs.model_dump(mode="json", exclude={"preflight", "movies", "gain", "defects"})
    used["motion_prior"] = spec.motion_prior.model_dump(mode="json", exclude={"hyperparameters_file"})
    files = [getattr(r, n) for r in spec.references for n in ("half1", "half2", "mask")] + [spec.inputs.gain, spec.inputs.defects]
    used["files"] = [file_stamp(path) for path in files]
    if not spec.alignment.all_components:
        used["fourier_fraction"] = spec.search.fourier_fraction
    if stage == "search":
        used["search"], used["seed"] = spec.search.model_dump(mode="json", exclude={"cache_gib"}), spec.seed
    if stage in ("weigh", "polish"):
        used["dose"] = spec.dose.model_dump(mode="json", exclude={"weights_file", "weights_pixel_angstrom"})
    if stage == "polish":
        used["output"] = spec.output.model_dump(mode="json", exclude={"stop_after", "tracks_star", "reconstruct", "symmetry"})
    text = json.dumps([SCHEMA, engine_version, stage, used, made_of], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def mark_done(path, mark, made=None, **notes):
    """Write a done marker: the fingerprint ``mark``, the hash of a file that was ``made`` and that others may write too, and whatever else is worth keeping."""
    own = {} if made is None else {"made": content_hash(made)}
    write_json(path, dict(notes, fingerprint=mark, **own))


def is_done(path, mark, *results, made=None):
    """True if the marker at ``path`` holds the fingerprint ``mark``, all ``results`` (paths) exist, and ``made`` is still the file that was made."""
    marker = read_object(path)
    untouched = made is None or marker.get("made") == content_hash(made) is not None
    return marker.get("fingerprint") == mark and untouched and all(Path(r).exists() for r in results)
