#!/usr/bin/env python3
"""Hold averages of movies against those of RELION's relion_run_motioncorr, along RELION's own motion and standard dose weights.

    python benchmarks/averages.py OUT                # a simulated movie of particles, and a texture whose truth is known
    python benchmarks/averages.py OUT --data DIR     # the first movie of a data set that was simulated before

RELION aligns each movie, rigidly and with its local model; its STAR file and the standard exposure curve then make our average of
the same frames. Ends with 1 if one of the bounds is missed. See benchmarks/README.md.
"""
from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.measure import run_measured  # noqa: E402
from comparison.report import markdown_table, write_results  # noqa: E402

from refmotion_plugin.contract.average_spec import AverageSpec  # noqa: E402
from refmotion_plugin.contract.averages import AverageResults  # noqa: E402
from refmotion_plugin.contract.conventions import local_shift_yx_px  # noqa: E402
from refmotion_plugin.contract.star import StarTable, read_corrected_micrographs, read_movie_metadata, read_tables, write_tables  # noqa: E402

PROGRAM, ENGINE = "relion_run_motioncorr", "refmotion_plugin.engine.run.average"
PIXEL_ANGSTROM, DOSE = 1.1, 1.2
BANDS = ((0.0, 0.25), (0.25, 0.375), (0.375, 0.45))      # cycles per px: to half Nyquist, to three quarters, to nine tenths
TEXTURE_PX, TEXTURE_FRAMES, COUNTS = 768, 16, 3.0
TRUE_MODEL = np.zeros(36)                                 # of the texture's motion, as RELION stores it
TRUE_MODEL[[0, 1, 3, 6]], TRUE_MODEL[[18, 19, 27, 30]] = (0.9, -0.03, 0.15, -0.25), (-0.7, 0.02, -0.2, 0.3)
LEAST_RIGID_CORRELATION, LEAST_LOCAL_FRC = 0.999, 0.99
HEADER = ["movie", "motion", "image", "correlation", "lowest FRC below half Nyquist", "power, ours / RELION's, above"]
TRUTH_HEADER = ["motion along which", "program"] + ["signal kept, %.2f to %.2f cycles/px" % band for band in BANDS]


def main(argv: list[str] | None = None) -> int:
    """Run everything; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.patches < 2:
        parser.error("--patches must be at least 2: rigid motion is looked at anyway")
    if shutil.which(PROGRAM) is None:
        raise SystemExit(f"{PROGRAM} not found on the PATH: install RELION 3.1 or later (Debian: apt-get install relion)")
    options.out.mkdir(parents=True, exist_ok=True)
    importlib.import_module(ENGINE)                 # takes seconds, which are no part of the first average
    rows, signal, times = [], [], []
    for name, make in (("particles", lambda folder: particle_movie(folder, options.data)), ("texture", texture_movie)):
        folder = options.out / name
        shutil.rmtree(folder, ignore_errors=True)
        scene = make(folder)
        for patches in (1, options.patches):
            motion = "rigid" if patches == 1 else f"local, {patches} x {patches} patches"
            pair, seconds = both_averages(folder, patches)
            rows += [[name, motion, kind, *compared(*pair[kind])] for kind in ("weighted", "unweighted")]
            times.append([name, motion, *seconds])
            if scene is not None:
                signal += [[f"RELION's, {motion}", who, *signal_kept(image, scene)]
                           for who, image in zip(("ours", "RELION"), pair["unweighted"])]
        if scene is not None:
            signal.append(["the true one", "ours", *signal_kept(true_average(folder), scene)])
    sections = [("Ours and RELION's averages", markdown_table(HEADER, rows)),
                ("Signal kept of the known texture", markdown_table(TRUTH_HEADER, signal)),
                ("CPU seconds", markdown_table(["movie", "motion", "ours: average", "RELION: alignment and average"], times)),
                ("Bounds", "\n".join(missed(rows, signal)) or "All are held: rigid motion, correlation at least %g; local motion, each ring below half Nyquist "
                 "at least %g, and ours keeps more of the signal above." % (LEAST_RIGID_CORRELATION, LEAST_LOCAL_FRC))]
    for heading, table in sections:
        print(f"\n{heading}\n\n{table}")
    data = {"averages": [dict(zip(HEADER, row)) for row in rows], "signal": [dict(zip(TRUTH_HEADER, row)) for row in signal]}
    write_results(options.results, "averages", "Averages of movies against RELION's", sections, data)
    return 1 if missed(rows, signal) else 0


def missed(rows: list, signal: list) -> list[str]:
    """A sentence for each bound that the tables miss: rows as under ``HEADER`` and ``TRUTH_HEADER``."""
    found = [f"{movie}, rigid, {kind}: the correlation is {correlation}" for movie, motion, kind, correlation, _, _ in rows
             if motion == "rigid" and float(correlation) < LEAST_RIGID_CORRELATION]
    found += [f"{movie}, {motion}, {kind}: the lowest ring below half Nyquist is {frc}" for movie, motion, kind, _, frc, _ in rows
              if motion != "rigid" and float(frc) < LEAST_LOCAL_FRC]
    local = {program: kept for motion, program, *kept in signal if "local" in motion}
    return found + [f"signal kept above half Nyquist: ours {ours}, RELION's {theirs}" for ours, theirs in zip(local["ours"][1:], local["RELION"][1:])
                    if ours <= theirs]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to work in; made if absent")
    parser.add_argument("--data", type=Path, metavar="DIR", help="simulated data set (default: simulate one movie)")
    parser.add_argument("--patches", type=int, default=3, help="RELION's patches per axis for local motion, at least 2 (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="DIR", default=HERE / "results", help="where the tables go")
    return parser


# ---- the movies -----------------------------------------------------------------------------------------------------------------

def particle_movie(folder: Path, data: Path | None) -> None:
    """``movie.tiff`` of particles in ice, simulated or the first of a data set."""
    folder.mkdir(parents=True)
    if data is None:
        from refmotion_plugin.engine.simulate import SimulationSpec, simulate
        data = folder / "data"
        simulate(data, SimulationSpec(movies=1, particles=40, frames=24, size_yx=(1024, 1024), dose_per_frame=DOSE,
                                      pixel_angstrom=PIXEL_ANGSTROM))
    (folder / "movie.tiff").symlink_to(sorted((data / "Movies").resolve().glob("*.tif*"))[0])
    _write_list(folder, "movie.tiff")


def texture_movie(folder: Path, size: int = TEXTURE_PX) -> np.ndarray:
    """``movie.mrc`` of a texture with all frequencies, moved by a local motion; returns the texture as relative contrast."""
    from scipy import ndimage
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    spectrum = np.fft.fft2(rng.normal(size=(size, size)))
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    spectrum *= k < 0.48
    scene = np.fft.ifft2(spectrum).real
    scene *= 0.3 / scene.std()
    fine = ndimage.spline_filter(_oversampled(scene, 3), order=5, mode="grid-wrap")
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), axis=-1).astype(float)
    frames = []
    for f in range(TEXTURE_FRAMES):
        place = grid
        for _ in range(8):               # the scene's point q that is seen at p: q - shift(q) = p
            shift = local_shift_yx_px(TRUE_MODEL, f, place[..., 1] / size - 0.5, place[..., 0] / size - 0.5)
            place = grid + shift
        seen = ndimage.map_coordinates(fine, 3 * np.moveaxis(place, -1, 0), order=5, mode="grid-wrap", prefilter=False)
        frames.append(rng.poisson(COUNTS * np.maximum(1 + seen, 0)))
    with mrcfile.new(str(folder / "movie.mrc"), overwrite=True) as file:
        file.set_data(np.array(frames, dtype=np.int16))
    _write_list(folder, "movie.mrc")
    return scene


def _oversampled(image: np.ndarray, factor: int) -> np.ndarray:
    n = len(image)
    wide = np.zeros((factor * n, factor * n), complex)
    low = np.fft.fftfreq(n, 1 / n).astype(int)
    wide[np.ix_(low, low)] = np.fft.fft2(image)
    return np.fft.ifft2(wide).real * factor ** 2


def _write_list(folder: Path, movie: str) -> None:
    """RELION's list of movies to correct."""
    optics = {"rlnOpticsGroupName": ["group1"], "rlnOpticsGroup": ["1"], "rlnMicrographOriginalPixelSize": [str(PIXEL_ANGSTROM)],
              "rlnVoltage": ["300"], "rlnSphericalAberration": ["2.7"], "rlnAmplitudeContrast": ["0.1"]}
    write_tables(folder / "movies.star", [StarTable("optics", optics), StarTable("movies", {"rlnMicrographMovieName": [movie],
                                                                                            "rlnOpticsGroup": ["1"]})])


# ---- both programs --------------------------------------------------------------------------------------------------------------

def both_averages(folder: Path, patches: int) -> tuple[dict, tuple]:
    """{kind: (ours, RELION's)} without the frame's edges, where RELION wraps round; and CPU seconds of both."""
    out = f"relion_{patches}"
    command = [PROGRAM, "--i", "movies.star", "--o", f"{out}/", "--use_own", "--dose_weighting", "--save_noDW", "--skip_defect",
               "--dose_per_frame", DOSE, "--preexposure", 0, "--patch_x", patches, "--patch_y", patches, "--bfactor", 150, "--j", 1]
    relion_seconds = run_measured(command, folder, folder / f"{out}.log").cpu_s
    star = (folder / out / "corrected_micrographs.star").resolve()
    start = time.process_time()
    ours = _average(folder / f"ours_{patches}", star)
    seconds = time.process_time() - start
    micrograph = read_corrected_micrographs(star)[0][0]
    metadata = read_movie_metadata(micrograph.metadata_star, micrograph.name)
    edge = 48 + int(np.abs(metadata.global_shift_xy_px).max())
    inside = (slice(edge, -edge), slice(edge, -edge))
    names = {"weighted": folder / micrograph.name, "unweighted": folder / micrograph.name.replace(".mrc", "_noDW.mrc")}
    return {kind: (ours[kind][inside], _image(path)[inside]) for kind, path in names.items()}, (seconds, relion_seconds)


def true_average(folder: Path) -> np.ndarray:
    """Our plain sum of the texture along its true motion, edges included."""
    tables = read_tables(folder / "relion_1" / "movie.star")
    zero = {c: ["0"] * len(v) if "Shift" in c else v for c, v in tables["global_shift"].columns.items()}
    model = {"rlnMotionModelCoeffsIdx": [str(i) for i in range(36)], "rlnMotionModelCoeff": [repr(float(c)) for c in TRUE_MODEL]}
    general = tables["general"].with_columns(rlnMotionModelVersion=["1"])
    write_tables(folder / "true.star", [general, StarTable("global_shift", zero), StarTable("local_motion_model", model)],
                 single_row=("general",))
    micrographs = {"rlnMicrographName": ["true.mrc"], "rlnMicrographMetadata": ["true.star"], "rlnOpticsGroup": ["1"]}
    write_tables(folder / "true_list.star", [StarTable("micrographs", micrographs)])
    return _average(folder / "ours_true", folder / "true_list.star")["unweighted"]


def _average(out: Path, star: Path) -> dict:
    run_average = importlib.import_module(ENGINE).run_average
    spec = AverageSpec.build({"inputs": {"movies": str(star), "hot_pixel_sigma": 0}, "compute": {"device": "cpu", "threads": 1}})
    before = os.getcwd()
    failed = run_average(out, spec).failed
    assert not failed and os.getcwd() == before, failed
    results = AverageResults(out)
    return {kind: _image(next(iter(results.micrographs(kind).values()))) for kind in ("weighted", "unweighted")}


def _image(path) -> np.ndarray:
    with mrcfile.open(str(path)) as file:
        return np.array(file.data, dtype=np.float64)


# ---- scores ---------------------------------------------------------------------------------------------------------------------

def _spectra(*images: np.ndarray) -> tuple:
    """Spectra of images under a window, and |k| in cycles per px."""
    height, width = images[0].shape
    window = np.outer(np.hanning(height), np.hanning(width))
    k = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    return tuple(np.fft.rfft2((image - image.mean()) * window) for image in images) + (k,)


def compared(ours: np.ndarray, theirs: np.ndarray) -> list:
    """Correlation of the images (text), lowest FRC of the rings below half Nyquist, ratio of their power above."""
    a, b, k = _spectra(ours, theirs)
    rings = [(k >= low) & (k < low + 0.025) for low in np.arange(0.0, 0.25, 0.025)]
    frc = [np.real(a[r] * b[r].conj()).sum() / np.sqrt((np.abs(a[r]) ** 2).sum() * (np.abs(b[r]) ** 2).sum()) for r in rings]
    above = (k >= 0.25) & (k < 0.5)
    return [f"{np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]:.5f}", f"{min(frc):.4f}",
            float((np.abs(a[above]) ** 2).sum() / (np.abs(b[above]) ** 2).sum())]


def signal_kept(average: np.ndarray, scene: np.ndarray) -> list[float]:
    """Share of the true amplitude that the plain sum holds in each band: 1 is all. The outermost px are left out."""
    edge = max((len(scene) - len(average)) // 2, 64)
    inner = edge - (len(scene) - len(average)) // 2
    average = average[inner:len(average) - inner, inner:len(average) - inner]
    a, s, k = _spectra(average / (TEXTURE_FRAMES * COUNTS), scene[edge:len(scene) - edge, edge:len(scene) - edge])
    bands = [(k >= low) & (k < high) for low, high in BANDS]
    return [round(float(np.real(a[b] * s[b].conj()).sum() / (np.abs(s[b]) ** 2).sum()), 3) for b in bands]


if __name__ == "__main__":
    sys.exit(main())
