"""Damaged files by the thousand: each must be read, or refused with one clear sentence; never a crash, a hang, or unbounded memory."""
from __future__ import annotations

import logging
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from refmotion_plugin.contract.errors import InputError, MovieError

from . import seeds, tiny

BATCH = 250                     # cases of one child process
SLOW_SECONDS = 20
MORE_BYTES = 1 << 30            # what a reader of such small files may ask for
FINE, REFUSED, BAD = "read", "refused", "BAD"
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 30, 1 << 20, 65000)
WORDS = (b"nan", b"inf", b"-1", b"0", b"1e308", b"1e-320", b"99999999999999999999", b"", b"\n", b"\0", b"'", b'"', b"#", b"_rln", b"loop_", b"data_",
         b"[", b"{", b"}", b"null", b"true", b"..", b"/dev/zero", b"\xff\xfe", b"<script>", b"%s", "ä".encode(), b"[" * 3000)


def damage(content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The content with something wrong, and in a word what."""
    data = bytearray(content)
    kind = rng.choice(("cut", "flip", "flip", "header", "number", "number", "zeros", "noise", "word", "word", "doubled", "removed", "text number"))
    at = rng.randrange(max(1, len(data)))
    if kind == "cut":
        return bytes(data[:at]), kind
    if kind in ("flip", "header"):
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            place = rng.randrange(min(len(data), 1100 if kind == "header" else len(data)))
            data[place] ^= 1 << rng.randrange(8)
    elif kind == "number":
        at = at if rng.random() < 0.5 else rng.randrange(min(len(data), 1100)) & ~3
        form, mask = rng.choice((("<I", 0xFFFFFFFF), (">I", 0xFFFFFFFF), ("<H", 0xFFFF), ("<Q", (1 << 64) - 1)))
        number = struct.pack(form, rng.choice(NUMBERS) & mask)
        data[at:at + len(number)] = number
    elif kind == "zeros":
        length = rng.choice((1, 16, 300, len(data)))
        data[at:at + length] = bytes(len(data[at:at + length]))
    elif kind == "noise":
        length = rng.choice((4, 64, 1024))
        data[at:at + length] = rng.randbytes(len(data[at:at + length]))
    elif kind == "word":
        data[at:at + rng.choice((0, 0, 1, 4))] = rng.choice(WORDS)
    elif kind == "doubled":
        data[at:at] = data[at:at + rng.choice((1, 40, 2000))]
    elif kind == "removed":
        del data[at:at + rng.choice((1, 4, 100, 2000))]
    else:
        data = _other_number(data, rng)
    return bytes(data), kind


def _other_number(data: bytearray, rng) -> bytearray:
    """One number that stands as text is replaced."""
    digits = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    if not digits:
        return data[:-1]
    begin = end = rng.choice(digits)
    while begin and data[begin - 1] in b"0123456789.-+e":
        begin -= 1
    while end < len(data) and data[end] in b"0123456789.-+e":
        end += 1
    return data[:begin] + rng.choice((b"nan", b"-3", b"0", b"1e300", b"1e-300", b"inf", b"4294967296", b"12345678901234567890", b"0.5", b"x", b"1e9")) + data[end:]


def one_case(seed: seeds.Seed, number: int, folder: Path) -> tuple[str, str]:
    """Damage the seed and read it: (outcome, text). ``number`` decides how."""
    content, kind = damage(seed.content, random.Random(f"{seed.name} {number}"))
    path = folder / seed.name
    path.write_bytes(content)
    begin = time.process_time()
    try:
        seed.read(path)
        outcome = FINE, kind
    except (InputError, MovieError) as error:
        outcome = (REFUSED, kind) if _is_clear(str(error)) else (BAD, f"{kind}: not one clear sentence: {error!r}")
    except MemoryError:
        outcome = BAD, f"{kind}: asks for more than {MORE_BYTES >> 20} MiB"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        ours = [f for f in traceback.extract_tb(error.__traceback__) if "refmotion_plugin" in f.filename]
        outcome = BAD, f"{kind}: {type(error).__name__}: {str(error)[:150]!r} at {Path(place.filename).name}:{place.lineno}" + (
            f", from {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "")
    if time.process_time() - begin > SLOW_SECONDS:
        outcome = BAD, f"{kind}: took {time.process_time() - begin:.0f} s"
    return outcome


def _is_clear(text: str) -> bool:
    return 20 <= len(text) <= 1500 and "\n" not in text and "Traceback" not in text


def all_seeds(folder: Path) -> list[seeds.Seed]:
    """Every kind of file; ``folder`` keeps the simulated project and the job they come from."""
    source, job, work = tiny.data(folder / "data"), folder / "job", folder / "work"
    if not (job / "report.html").exists():
        shutil.rmtree(job, ignore_errors=True)
        process = tiny.start(tiny.arguments(job, source, "--threads", "1"), folder / "log.txt")
        if process.wait():
            raise RuntimeError("the job to take files from failed: " + tiny.last_line(folder / "log.txt"))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shutil.copytree(job, work / "job")
    rng = np.random.default_rng(0)
    return seeds.movies(rng) + seeds.gains(rng) + seeds.inputs(source) + seeds.results(job, work)


def run(folder: Path, cases: int, say, first: int = 0, only: str = "") -> tuple[Counter, list[str]]:
    """Read so many damaged files, the kinds in turn; returns counts of (kind, outcome) and what went wrong."""
    every = all_seeds(folder)
    kinds = [seed for seed in every if only in seed.name]
    if not kinds:
        raise SystemExit(f"no kind of file has '{only}' in its name; there are {', '.join(sorted({seed.name for seed in every}))}")
    plan = [(kinds[i % len(kinds)], first + i // len(kinds)) for i in range(cases)]
    plan.sort(key=lambda item: kinds.index(item[0]))
    counts, faults = Counter(), []
    for begin in range(0, cases, BATCH):
        _batch(plan[begin:begin + BATCH], folder, counts, faults, say)
        say(f"{min(cases, begin + BATCH)} of {cases} cases, {len(faults)} bad")
    return counts, faults


def _batch(plan, folder, counts, faults, say) -> None:
    """Cases in a child process; one that ends the child, or hangs, is noted and the rest goes on in a new one."""
    while plan:
        done, pipe_in, pipe_out = mmap.mmap(-1, 8), *os.pipe()
        process = os.fork()
        if process == 0:
            os.close(pipe_in)
            _child(plan, folder, done, pipe_out)
        os.close(pipe_out)
        status = _watch(process, done, len(plan), pipe_in, counts, faults, plan, say)
        reached = struct.unpack("<q", done)[0]
        if reached == len(plan):
            return
        seed, number = plan[reached]
        faults.append(f"{seed.name} case {number}: ended the process ({status})")
        counts[seed.name, BAD] += 1
        say("BAD " + faults[-1])
        plan = plan[reached + 1:]


def _child(plan, folder, done, pipe) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_BYTES, -1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    work = folder / "fuzzed"
    work.mkdir(exist_ok=True)
    with os.fdopen(pipe, "w", buffering=1) as out:
        for i, (seed, number) in enumerate(plan):
            signal.alarm(6 * SLOW_SECONDS)              # kills: nothing in Python could stop a loop in a library
            outcome, text = one_case(seed, number, work)
            out.write("%d\t%s\t%s\n" % (i, outcome, text.replace("\n", " ").replace("\t", " ")))
            done[:] = struct.pack("<q", i + 1)
    os._exit(0)


def _watch(process, done, total, pipe, counts, faults, plan, say) -> str:
    with os.fdopen(pipe) as lines:
        for line in lines:
            i, outcome, text = line.rstrip("\n").split("\t", 2)
            seed, number = plan[int(i)]
            counts[seed.name, outcome] += 1
            if outcome == BAD:
                faults.append(f"{seed.name} case {number}: {text}")
                say("BAD " + faults[-1])
    code = os.waitpid(process, 0)[1]
    return signal.Signals(os.WTERMSIG(code)).name if os.WIFSIGNALED(code) else f"exit code {os.WEXITSTATUS(code)}"


def through_the_program(folder: Path, cases: int, say) -> tuple[Counter, list[str]]:
    """A sample through ``refmotion run`` and ``status``: exit code 0, 2 or 3 and one sentence, nothing unexpected."""
    source, rng = tiny.data(folder / "data"), random.Random(1)
    copy, counts, faults = folder / "program", Counter(), []
    files = ["particles.star", "MotionCorr/corrected_micrographs.star", "half1.mrc", "mask.mrc"]
    files += [str(p.relative_to(source)) for p in sorted((source / "MotionCorr").glob("*.star"))[:1] + sorted(source.rglob("*.tif*"))[:1]]
    jobs = ["job.json", "status.jsonl", "weights.npz", "align.done.json", "trajectories.npz", "polish.done.json", "hyperparameters.json", "amplitudes.json"]
    for case in range(cases):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy / "data")
        output, victim = copy / "log.txt", files[case % len(files)]
        path = copy / "data" / victim
        if case % 2:
            shutil.copytree(folder / "job", copy / "job")
            victim = jobs[case // 2 % len(jobs)]
            path = next((copy / "job").rglob(victim))
        content, kind = damage(path.read_bytes(), rng)
        path.write_bytes(content)
        command = ["status", str(copy / "job")] if case % 8 == 7 else tiny.arguments(copy / "job", copy / "data", "--threads", "1")
        process = tiny.start_fork(command, output)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        text = output.read_text()
        good = code in (0, 2, 3) and "Traceback" not in text and "unexpected" not in text
        counts[victim, FINE if code == 0 else REFUSED if good else BAD] += 1
        if not good:
            faults.append(f"{victim} damaged ({kind}), case {case}: exit code {code}: {tiny.last_line(output)}")
            say("BAD " + faults[-1])
    return counts, faults
