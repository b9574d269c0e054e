#!/usr/bin/env python3
"""How good are fitted dose weights? Tables of sums with known truth, fitted as a job fits them; and one job on simulated movies.

    python benchmarks/weights.py OUT                 # synthetic tables and a small simulated data set (OUT/data)
    python benchmarks/weights.py OUT --no-movies     # synthetic tables only, under a minute

*SNR kept* is (sum w a)^2 / (sum w^2 sum a^2), mean over shells from 20 to 4 A, of weights w where the true relative amplitudes are a; each
row is the mean and the worst of several draws of the noise. *Curve* is the same of the standard exposure curve. See benchmarks/README.md.
"""
from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from comparison.project import holds_data  # noqa: E402
from comparison.report import markdown_table, write_results  # noqa: E402

from refmotion_plugin.contract import exchange  # noqa: E402
from refmotion_plugin.contract.conventions import dose_at_mid_frame  # noqa: E402
from refmotion_plugin.contract.damage import exposure_amplitude  # noqa: E402
from refmotion_plugin.contract.records import FccTable  # noqa: E402
from refmotion_plugin.contract.spec import JobSpec  # noqa: E402
from refmotion_plugin.contract.weighting import resample  # noqa: E402
from refmotion_plugin.engine.dose.weights import fit_dose_weights  # noqa: E402
from refmotion_plugin.engine.simulate import SimulationSpec, simulate  # noqa: E402
from refmotion_plugin.engine.simulate.damage import frame_amplitude  # noqa: E402
from refmotion_plugin.engine.simulate.score import true_amplitude  # noqa: E402

BOX_ANGSTROM, END = 320.0, 0.3          # of the synthetic tables; 1/A
BAND = (1 / 20.0, 1 / 4.0)
DRAWS = 3
SIGNAL, SIGNAL_B = 0.06, 160.0          # amplitude of one particle in one frame, in units of its noise per component, and its decay
GATES = {"2000 particles": 0.995, "200 particles": 0.98}
SIMULATED = SimulationSpec(movies=4, particles=60, frames=24, size_yx=(768, 768), box=128, pixel_angstrom=1.5, seed=11)


def main(argv: list[str] | None = None) -> int:
    """Print and write every row; returns 0 if all gates hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for files and the simulated data set")
    parser.add_argument("--no-movies", action="store_true", help="leave out the row on simulated movies")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the result files (default: benchmarks/results)")
    parser.add_argument("--name", default="weights", help="name of the result files")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = fits() + mixed() + early_peaks() + transfers(options.out)
    if not options.no_movies:
        rows += movies(options.out)
    header = ["truth", "data", "SNR kept, mean", "worst", "curve", "at least", "holds"]
    table = markdown_table(header, [[r["truth"], r["data"], _percent(r["mean"]), _percent(r["worst"]), _percent(r["curve"]),
                                     _percent(r["gate"]), _yes(r)] for r in rows])
    path = write_results(options.results, options.name, "Dose weights", [("Signal-to-noise ratio kept", table)], {"rows": rows})
    print(path.read_text())
    return 0 if all(r["gate"] is None or r["worst"] >= r["gate"] for r in rows) else 1


def _percent(value):
    return "" if value is None else "%.2f %%" % (100 * value)


def _yes(row):
    return "" if row["gate"] is None else "yes" if row["worst"] >= row["gate"] else "**no**"


def row(truth, data, kept, curve, gate=None) -> dict:
    """One row; ``kept`` of each draw."""
    return {"truth": truth, "data": data, "mean": float(np.mean(kept)), "worst": float(np.min(kept)), "curve": curve, "gate": gate}


# ---- synthetic tables -----------------------------------------------------------------------------------------------------------

def frequencies(box_angstrom=BOX_ANGSTROM):
    """Shells of a table, 1/A."""
    return np.arange(int(END * box_angstrom) + 1) / box_angstrom


def published(frames, dose, k, voltage=300.0):
    """Relative amplitudes (frame, shell) that the published curve leaves, averaged inside frames."""
    return frame_amplitude(k, frames, dose, 0.0, voltage)


def exponential_b(frames, dose, k, b_per_dose=4.0):
    """Another damage: a B-factor that grows with dose (A^2 per e/A^2), as for a Gaussian loss of order."""
    return np.exp(-b_per_dose * dose_at_mid_frame(frames, dose)[:, None] * k ** 2 / 4.0)


def blurred(shape, frames, dose, k, first_angstrom=5.0, decay=2.0):
    """Amplitudes times the mean over directions of sinc for motion inside frames: speed falls exponentially with dose (e/A^2).

    ``first_angstrom``: path in a first frame of 1.2 e/A^2.
    """
    start = dose * np.arange(frames)
    length = first_angstrom * (np.exp(-start / decay) - np.exp(-(start + dose) / decay)) / (1.0 - np.exp(-1.2 / decay))
    angle = (np.arange(64) + 0.5) / 64 * np.pi / 2
    return shape * np.sinc(length[:, None, None] * k[None, :, None] * np.cos(angle)).mean(-1)


def table_of(shape, particles, doses, k, seed, scale=1.0) -> FccTable:
    """Sums with the noise that so many particles have: per component of unit variance."""
    rng = np.random.default_rng([seed, particles])
    components = np.broadcast_to(particles * np.pi * np.maximum(np.arange(len(k)), 0.5), shape.shape)
    reference = 2 * components * (0.5 + np.exp(-60.0 * k ** 2))
    signal = scale * SIGNAL * np.exp(-SIGNAL_B * k ** 2 / 4.0) * shape
    cross = reference * signal + np.sqrt(reference) * rng.normal(size=shape.shape)
    power = 2 * components * np.ones_like(cross)
    return FccTable(frequency_per_angstrom=k, dose_e_per_A2=doses, cross=cross[None], power_movie=power[None],
                    power_reference=reference[None].copy(), components=np.array(components)[None])


def fit(table, voltage=300.0, others=(), **options):
    """As a job fits, to 4 A."""
    return fit_dose_weights(table, voltage, high_frequency_per_angstrom=BAND[1], others=others, **options)


def kept(weight, shape, k, rise=1e-12) -> float:
    """Share of the best signal-to-noise ratio, mean over the band; 0 for weights that rise again after their peak by more than ``rise``."""
    band = (k >= BAND[0]) & (k <= BAND[1])
    w, a = weight[:, band], shape[:, band]
    peak = w.argmax(0)
    falls = all((np.diff(w[p:, i]) <= rise * w[p, i]).all() for i, p in enumerate(peak))
    return float(((w * a).sum(0) ** 2 / ((w ** 2).sum(0) * (a ** 2).sum(0))).mean()) if falls else 0.0


TRUTHS = {
    "published curve, motion at the start": (lambda f, d, k: blurred(published(f, d, k), f, d, k), 300.0),
    "published curve, strong motion at the start": (lambda f, d, k: blurred(published(f, d, k), f, d, k, 10.0, 1.5), 300.0),
    "published curve, no motion": (published, 300.0),
    "B-factor 4 Å² per e/Å², motion": (lambda f, d, k: blurred(exponential_b(f, d, k), f, d, k), 300.0),
    "twice the damage, motion": (lambda f, d, k: blurred(published(f, 2 * d, k), f, d, k), 300.0),
    "200 kV, motion": (lambda f, d, k: blurred(published(f, d, k, 200.0), f, d, k), 200.0),
}


def fits() -> list[dict]:
    """Each truth with 2,000, 200 and 50 particles, 40 frames of 1.2 e/A^2."""
    frames, dose, k = 40, 1.2, frequencies()
    doses, rows = dose_at_mid_frame(40, 1.2), []
    for name, (truth, voltage) in TRUTHS.items():
        shape = truth(frames, dose, k)
        curve = kept(exposure_amplitude(doses, k, voltage), shape, k)
        for particles in (2000, 200, 50):
            data = "%d particles" % particles
            values = [kept(fit(table_of(shape, particles, doses, k, seed), voltage).weight[0], shape, k) for seed in range(DRAWS)]
            rows.append(row(name, data, values, curve, GATES.get(data)))
    return rows


def mixed() -> list[dict]:
    """Half the particles in movies of 40 x 1.2, half in 20 x 1.8 e/A^2, in boxes of other sizes and with another scale; one fit."""
    name = "published curve, motion at the start"
    truth, k, other_k = TRUTHS[name][0], frequencies(), frequencies(240.0)
    shape, other = truth(40, 1.2, k), truth(20, 1.8, other_k)
    rows = []
    for particles in (2000, 200):
        values = []
        for seed in range(DRAWS):
            tables = [table_of(shape, particles // 2, dose_at_mid_frame(40, 1.2), k, seed),
                      table_of(other, particles // 2, dose_at_mid_frame(20, 1.8), other_k, seed + 100, 1.3)]
            found = fit(tables[0], others=[tables[1]])
            values += [kept(found.weight[0], shape, k), kept(resample(found, 0, tables[1].dose_e_per_A2, other_k), other, other_k)]
        rows.append(row(name, "%d particles in movies of two kinds" % particles, values, None, GATES["%d particles" % particles]))
    return rows


def early_peaks() -> list[dict]:
    """Frames 1 (and 2) blurred: the share of shells finer than 10 A whose weights peak at the right frame."""
    k, rows = frequencies(), []
    doses = dose_at_mid_frame(40, 1.2)
    for peak in (1, 2):
        shape = published(40, 1.2, k)
        for f, b in enumerate((90.0, 30.0)[-peak:]):
            shape[f] *= 0.8 * np.exp(-b * k ** 2 / 4.0)
        fine = (k >= 0.1) & (k <= BAND[1])
        right = []
        for seed in range(DRAWS):
            weight = fit(table_of(shape, 2000, doses, k, seed)).weight[0]
            right.append(float(np.mean(weight[:, fine].argmax(0) == shape[:, fine].argmax(0))))
        rows.append(row("peak at frame %d" % (peak + 1), "2000 particles: shells whose peak is right", right, None, 0.9))
    return rows


def transfers(out: Path) -> list[dict]:
    """Weights of 40 x 1.2 e/A^2 at 320 A boxes used for 60 x 0.7 e/A^2 and 24 x 2.0 e/A^2 with other shells, as they are and through files."""
    name = "published curve, motion at the start"
    truth, k = TRUTHS[name][0], frequencies()
    doses, rows = dose_at_mid_frame(40, 1.2), []
    source = [fit(table_of(truth(40, 1.2, k), 2000, doses, k, seed), highest_frequency_per_angstrom=1.0) for seed in range(DRAWS)]
    exposure = exchange.Exposure(1.2)
    for frames, dose, box in ((60, 0.7, 250.0), (24, 2.0, 410.0), (40, 1.2, 250.0)):
        other_k = frequencies(box)
        wanted, other_doses = truth(frames, dose, other_k), dose_at_mid_frame(frames, dose)
        for ending in ("", ".npz", ".json", ".npy", ".star"):
            values = []
            for weights in source:
                if ending:
                    exchange.write_weights(out / ("weights" + ending), weights, pixel_angstrom=0.83, voltage_kilovolt=300.0)
                    weights = exchange.read_weights(out / ("weights" + ending), exposure, 0.83)
                values.append(kept(resample(weights, 0, other_doses, other_k), wanted, other_k, 0.02 if ending == ".star" else 1e-12))
            curve = kept(exposure_amplitude(other_doses, other_k), wanted, other_k)
            rows.append(row(name, "weights of 40 × 1.2 used for %d × %.1f e/Å², box %.0f Å%s" % (frames, dose, box, ending and ", through " + ending),
                            values, curve, None if ending == ".star" else 0.99))
    return rows


# ---- movies ---------------------------------------------------------------------------------------------------------------------

def movies(out: Path) -> list[dict]:
    """A job on simulated movies, against damage and blur inside frames along the true motion."""
    from refmotion_plugin.contract.results import JobResults
    from refmotion_plugin.engine.run.job import run_job
    folder = out / "data"
    if not holds_data(folder, SIMULATED):
        shutil.rmtree(folder, ignore_errors=True)
        simulate(folder, SIMULATED)
    part = {n: str(folder / f) for n, f in (("particles", "particles.star"), ("half1", "half1.mrc"), ("half2", "half2.mrc"), ("mask", "mask.mrc"))}
    spec = JobSpec.build({"inputs": {"movies": str(folder / "MotionCorr" / "corrected_micrographs.star")}, "references": [part],
                          "output": {"stop_after": "dose-weights"}, "compute": {"device": "cpu", "threads": 1}})
    shutil.rmtree(out / "job", ignore_errors=True)      # a finished job would have nothing to do
    run_job(out / "job", spec)
    found = JobResults(out / "job").weights()
    with np.load(folder / "truth" / "damage.npz") as file:
        k, doses = file["frequency_per_angstrom"], file["dose_e_per_A2"]
    wanted = true_amplitude(folder / "truth")
    curve = kept(exposure_amplitude(doses, k, SIMULATED.voltage), wanted, k)
    count = SIMULATED.movies * SIMULATED.particles
    return [row("simulated movies, bursts of motion", "%d particles" % count, [kept(resample(found, 0, doses, k), wanted, k)], curve, 0.98)]


if __name__ == "__main__":
    sys.exit(main())
