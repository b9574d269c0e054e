"""Small valid files of every kind a job reads, and what reads each: the material of the fuzzing."""
from __future__ import annotations

import bz2
import gzip
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import numpy as np
import tifffile

from refmotion_plugin.contract import exchange, layout, star, store
from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.cluster_spec import ClusterSpec
from refmotion_plugin.contract.records import MovieMetadata
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.spec import InputSpec, JobSpec
from refmotion_plugin.engine.movies.defects import read_defects
from refmotion_plugin.engine.movies.gain import load_gain
from refmotion_plugin.engine.movies.stack import load_movie
from refmotion_plugin.engine.optics.volumes import load_reference, read_map
from refmotion_plugin.engine.run.found import found_on_disk
from refmotion_plugin.engine.stages.prepared import load_amplitudes
from tests.unit.test_movies_writers import eer_bytes, mrc_bytes, pack_nibbles, random_events

SHAPE, FRAMES = (40, 48), 4
INPUTS = InputSpec(movies="x", eer_grouping=2)


@dataclass(frozen=True)
class Seed:
    """A kind of file: its ``name`` (with the ending that decides how it is read), its bytes, and ``read(path)``, which raises AssertionError
    for a result that should not have been accepted."""

    name: str
    content: bytes
    read: Callable[[Path], None]


def sane(*arrays) -> None:
    """Numbers that leave a reader are finite."""
    for array in arrays:
        array = np.asarray(array)
        assert array.dtype.kind != "O", "an object array was accepted"
        assert array.dtype.kind not in "fc" or np.isfinite(array).all(), "numbers that are not finite were accepted"


# ---- movies ----------------------------------------------------------------------------------------------------------------------

def read_movie(path: Path) -> None:
    """As a job does: the movie's STAR file has said its size."""
    metadata = MovieMetadata(
        micrograph="m.mrc", movie_file=str(path), size_yx=SHAPE, n_frames=FRAMES, original_pixel_angstrom=1.0, binning=1.0,
        dose_per_frame_e_per_A2=1.0, pre_exposure_e_per_A2=0.0, voltage_kilovolt=300.0, start_frame=1,
        global_shift_xy_px=np.zeros((FRAMES, 2)), eer_grouping=2, eer_upsampling=1)
    for held in (1 << 30, 0):                       # held decoded, and decoded frame by frame
        stack = load_movie(metadata, INPUTS, held_bytes=held)
        assert stack.n_frames == FRAMES and stack.shape_yx == SHAPE, "another shape than the STAR file's was accepted"
        for f in range(FRAMES):
            sane(stack.corrected(f).numpy())


def movies(rng) -> list[Seed]:
    """Movies of every format."""
    counts = rng.poisson(3.0, (FRAMES, *SHAPE))
    seeds = [Seed(f"{dtype}.mrc", mrc_bytes(counts.astype(dtype)), read_movie) for dtype in ("int8", "int16", "uint16", "float32", "float16")]
    seeds += [Seed("nibbles.mrc", mrc_bytes(pack_nibbles(counts.clip(0, 15)), 101, width=SHAPE[1]), read_movie),
              Seed("big-endian.mrc", mrc_bytes(counts.astype("int16"), order=">"), read_movie),
              Seed("packed.mrc.gz", gzip.compress(mrc_bytes(counts.astype("int16"))), read_movie),
              Seed("packed.mrc.bz2", bz2.compress(mrc_bytes(counts.astype("int16"))), read_movie)]
    kinds = [("plain", {}), ("lzw", {"compression": "lzw"}), ("deflate", {"compression": "zlib"}), ("packbits", {"compression": "packbits"}),
             ("lzw-predictor", {"compression": "lzw", "predictor": True}), ("tiles", {"compression": "zlib", "tile": (16, 16)}),
             ("strips", {"compression": "lzw", "rowsperstrip": 7}), ("big", {"bigtiff": True}), ("float", {"dtype": "float32"})]
    for name, options in kinds:
        buffer = io.BytesIO()
        data = counts.astype(options.pop("dtype", "uint8"))
        with tifffile.TiffWriter(buffer, bigtiff=options.pop("bigtiff", False)) as writer:
            for frame in data:
                writer.write(frame, contiguous=False, photometric="minisblack", **options)
        seeds.append(Seed(f"{name}.tiff", buffer.getvalue(), read_movie))
    for compression in (65000, 65001):
        events = [random_events(rng, SHAPE[0] * SHAPE[1], 60) for _ in range(2 * FRAMES)]
        seeds.append(Seed(f"{compression}.eer", eer_bytes(events, SHAPE, compression), read_movie))
    return seeds


def gains(rng) -> list[Seed]:
    """Gain references and defect files."""
    gain = rng.normal(1.0, 0.1, SHAPE).astype(np.float32)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, gain, compression="zlib")
    defects = io.BytesIO()
    tifffile.imwrite(defects, (gain > 1.2).astype(np.uint8), compression="lzw")

    def read_gain(path):
        sane(load_gain(path, SHAPE).multiplier.numpy())

    def read_eer_gain(path):
        sane(load_gain(path, SHAPE, is_eer=True).multiplier.numpy())

    def read_bad(path):
        found = read_defects(path, SHAPE)
        assert found.ndim == 2 and len(found) <= SHAPE[0] * SHAPE[1] and (found >= 0).all() and (found < SHAPE).all()

    return [Seed("gain.mrc", mrc_bytes(gain[None]), read_gain), Seed("gain.tif", buffer.getvalue(), read_gain),
            Seed("eer.gain", buffer.getvalue(), read_eer_gain), Seed("defects.txt", b"# bad columns\n3 4 5 6\n0 0 1 40\n", read_bad),
            Seed("defects.tif", defects.getvalue(), read_bad)]


# ---- a job's inputs and results --------------------------------------------------------------------------------------------------

def inputs(source: Path) -> list[Seed]:
    """STAR files and maps of a simulated project (``source``) as a job reads them."""
    corrected = source / "MotionCorr" / "corrected_micrographs.star"
    rows, _ = star.read_corrected_micrographs(corrected)

    def read_particles(path):
        found = star.read_particles(path, 0, 1.5)
        table = found.table
        sane(*[value for value in vars(table).values() if value.dtype.kind == "f"])
        sane(*[getattr(group, name) for group in found.optics.values() for name in ("voltage_kilovolt", "image_pixel_angstrom", "odd_zernike")])
        layout.particles_hash(table)

    def read_micrographs(path):
        found, _ = star.read_corrected_micrographs(path)
        assert len(found) == len({m.name for m in found})

    def read_movie_star(path):
        movie = star.read_movie_metadata(path, "m.mrc")
        sane(movie.global_shift_xy_px, movie.original_pixel_angstrom, movie.dose_per_frame_e_per_A2, movie.pre_exposure_e_per_A2)
        assert movie.n_frames < 1e6 and max(movie.size_yx) < 1e6, "an absurd size was accepted"

    def read_half(path):
        sane(read_map(path)[0])

    def read_reference(path):
        spec = JobSpec.build({"inputs": {"movies": "m"}, "references": [{"particles": "p", "half1": str(source / "half1.mrc"), "half2": str(source / "half2.mrc"),
                                                                        "mask": str(path)}]}).references[0]
        sane(load_reference(spec).limit_angstrom)

    seeds = [("particles.star", source / "particles.star", read_particles), ("corrected_micrographs.star", corrected, read_micrographs),
             ("movie.star", Path(rows[0].metadata_star), read_movie_star), ("half.mrc", source / "half1.mrc", read_half),
             ("mask.mrc", source / "mask.mrc", read_reference)]
    found = [Seed(name, path.read_bytes(), read) for name, path, read in seeds]
    return found + [replace(found[3], name="half.mrc.gz", content=gzip.compress(found[3].content, 1))]


def results(job: Path, work: Path) -> list[Seed]:
    """Files of a finished job: what a later run, a viewer or another job reads of them. ``work``: a folder for jobs that are damaged."""
    movie = next((job / "movies").iterdir())

    def read_weights(path):
        weights = exchange.read_weights(path, exchange.Exposure(1.2), 1.5)
        sane(*[v for v in vars(weights).values() if not isinstance(v, str)])
        assert weights.weight.shape[1:] == (len(weights.dose_e_per_A2), len(weights.frequency_per_angstrom)), "axes and weights differ"

    def read_trajectories(path):
        table = store.load_trajectories(path)
        sane(table.displacement_yx_angstrom, table.initial_yx_angstrom, table.dose_e_per_A2)
        assert table.displacement_yx_angstrom.shape == (len(table.row), len(table.dose_e_per_A2), 2), "another shape was accepted"

    def read_fcc(path):
        table = store.load_fcc(path)
        sane(table.cross, table.power_movie, table.power_reference)
        assert table.cross.shape[1:] == (len(table.dose_e_per_A2), len(table.frequency_per_angstrom)), "another shape was accepted"

    def read_prior(path):
        sane(*[v for v in vars(exchange.read_hyperparameters(path)).values() if isinstance(v, float)])

    search = json.dumps({"family": "RELION's", "text": "found", "worth_it": True, "gain_log_likelihood": 3.0, "gain_error": 1.0,
                         "gain_error_over_movies": None, "movies_with_gain": 2, "particles": 18, "movies": ["a", "b"],
                         "activity_at_last_angstrom": 0.1, "margins": {"RELION's": [0.0, 1.0]}}).encode()
    weights = store.load_weights(job / "weights.npz")
    for name in ("weights.json", "weights.npy", "opt_params_all_groups.txt"):
        (work / name).unlink(missing_ok=True)
    exchange.write_weights(work / "weights.json", weights)
    exchange.write_weights(work / "weights.npy", weights, pixel_angstrom=1.5)
    exchange.write_hyperparameters(work / "opt_params_all_groups.txt", store.load_hyperparameters(job / "hyperparameters.json"))
    cluster = b'{"jobs": 2, "queue": "gpu", "cores": 4, "memory": "8GB", "walltime": "1:00:00", "directives": ["--gres=gpu:1"]}'
    average = b'{"inputs": {"movies": "m.star"}, "output": {"binning": 2.0}, "dose": {"weights_file": null}}'
    seeds = [(job / "weights.npz", read_weights), (job / "bfactors.star", read_weights), (work / "weights.json", read_weights),
             (work / "weights.npy", read_weights), (movie / "trajectories.npz", read_trajectories), (movie / "fcc.npz", read_fcc),
             (job / "hyperparameters.json", read_prior), (work / "opt_params_all_groups.txt", read_prior), (job / "amplitudes.json", read_amplitudes),
             (job / "job.json", JobSpec.read)]
    found = [Seed(path.name, path.read_bytes(), read) for path, read in seeds]
    found += [Seed("cluster.json", cluster, ClusterSpec.read), Seed("average.json", average, AverageSpec.read), Seed("search.json", search, _search(work, job))]
    for name in ("status.jsonl", "progress.json", "verdict.json", "job.json", "weights.npz", "particles.star",
                 *[f"movies/{movie.name}/{file}" for file in ("align.done.json", "polish.done.json", "trajectories.npz")]):
        if (job / name).exists():
            found.append(Seed("in-job-" + Path(name).name, (job / name).read_bytes(), _in_job(work, job, movie.name, name)))
    return found


def _in_job(work, job, movie, name):
    def read(path):
        """Read the whole job, of which this is one file, as ``status`` and viewers do, and what is done of it as a resumed run does."""
        folder = work / "job"
        (folder / name).write_bytes(path.read_bytes())
        try:
            found = JobResults(folder)
            found.summary()
            found.search()
            found.verdict()
            for part in (found.weights, found.fcc_total, found.hyperparameters, found.polished_images, found.left_out, found.progress):
                part()
            found_on_disk(found.layout, [movie], "align", 1)
            found_on_disk(found.layout, [movie], "polish", 1)
        finally:
            (folder / name).write_bytes((job / name).read_bytes())
    return read


def _search(work, job):
    def read(path):
        """Read what a search is said to have found, in a job that wanted one."""
        folder = work / "job"
        (folder / "search.json").write_bytes(path.read_bytes())
        spec = json.loads((job / "job.json").read_text())
        spec["search"]["thoroughness"] = "fast"
        (folder / "job.json").write_text(json.dumps(spec))
        try:
            JobResults(folder).search()
        finally:
            (folder / "search.json").unlink()
            (folder / "job.json").write_bytes((job / "job.json").read_bytes())
    return read


def read_amplitudes(path: Path) -> None:
    """S(k) of the references."""
    for amplitude in load_amplitudes(path):
        sane(amplitude.factor, amplitude.frequency_per_angstrom)
        assert amplitude.factor.shape == amplitude.frequency_per_angstrom.shape and amplitude.factor.ndim == 1, "another shape was accepted"
