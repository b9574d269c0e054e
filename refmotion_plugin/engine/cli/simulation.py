"""What the command ``simulate`` does. The simulator takes a moment to load: only here."""
import os
import shlex
import sys
import time
from pathlib import Path

from ..options import dataclass_from
from .exit_codes import EXIT_FINE
from .talk import progress_bar


def simulate_command(values):
    """``refmotion simulate``."""
    from ..run.status import Progress
    from ..simulate import simulate
    from ..simulate.spec import SimulationSpec
    out, start = Path(values.pop("out")), time.monotonic()
    with progress_bar() as listener:
        def progress(done, total, sentence):
            each = (time.monotonic() - start) / max(done, 1)
            step = Progress("simulate", done, total, each, each * (total - done))
            if listener:
                listener(step)
            else:
                print(step.line(), file=sys.stderr, flush=True)
        paths = simulate(out, dataclass_from(values, SimulationSpec), progress, relative_to=Path.cwd())
    print("run it with: " + _run_line(paths))
    return EXIT_FINE


def _run_line(paths):
    def short(path):
        return os.path.relpath(str(path))
    sets = list(zip(paths.particles, paths.half1, paths.half2, paths.mask))
    line = ["refmotion", "run", "OUT", "--movies", short(paths.corrected_micrographs), "--particles", short(sets[0][0]),
            "--half1", short(sets[0][1]), "--half2", short(sets[0][2]), "--mask", short(sets[0][3])]
    for others in sets[1:]:
        line += ["--reference", ",".join("%s=%s" % (n, short(p)) for n, p in zip(("particles", "half1", "half2", "mask"), others))]
    return shlex.join(line)
