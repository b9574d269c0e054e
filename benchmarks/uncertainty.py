"""How honest are the trajectories' standard deviations? Share of true errors within one and two of them.

    python benchmarks/uncertainty.py JOB TRUTH

JOB: folder of a finished job on simulated movies; TRUTH: the truth folder of the simulation. About 68 % and 95 % are right.
"""
import argparse
import json
from pathlib import Path

import numpy as np

from refmotion_plugin.contract.results import JobResults


def coverage(results, truth):
    """Rows (name, share within 1 sd, share within 2 sd, rms error per axis in A, mean sd in A)."""
    error, sd = [], []
    for key in results.aligned_keys():
        track = results.trajectories(key)
        with np.load(Path(truth) / (Path(track.micrograph).stem + ".npz")) as known:
            true = known["displacement_yx_angstrom"]
        first = int(track.row.min())
        error.append(track.displacement_yx_angstrom - true[track.row - first])
        sd.append(np.broadcast_to(track.deviation_sd_angstrom[..., None], error[-1].shape))
    error, sd = np.concatenate(error), np.concatenate(sd)
    parts = {"all frames": slice(None), "first five frames": slice(0, 5), "last five frames": slice(-5, None)}
    return [(name, *(float(np.mean(np.abs(error[:, part]) < n * sd[:, part])) for n in (1, 2)),
             float(np.sqrt(np.mean(error[:, part] ** 2))), float(sd[:, part].mean())) for name, part in parts.items()]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job")
    parser.add_argument("truth", type=Path)
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args()
    rows = coverage(JobResults(options.job), options.truth)
    print("| frames | within 1 sd | within 2 sd | rms error per axis, Å | mean sd, Å |\n|---|---|---|---|---|")
    for row in rows:
        print("| %s | %.3f | %.3f | %.3f | %.3f |" % row)
    if options.json:
        options.json.write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
