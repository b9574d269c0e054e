"""A small, seeded part of the fuzzing in benchmarks/faults.py: damaged files are read or refused with one clear sentence."""
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from reliability import fuzz, seeds  # noqa: E402

from refmotion_plugin.contract.errors import InputError  # noqa: E402
from refmotion_plugin.engine.run.job import run_job  # noqa: E402
from refmotion_plugin.engine.stages.prepared import Amplitude, save_amplitudes  # noqa: E402

from tests.unit.job_stand_ins import FakeStages, write_project  # noqa: E402

CASES = 12      # of each kind of file


def no_faults(found, folder):
    faults = []
    for seed in found:
        seed.read(_written(folder, seed))                       # whole, it is read
        for number in range(CASES):
            outcome, text = fuzz.one_case(seed, number, folder)
            faults += ["%s case %d: %s" % (seed.name, number, text)] * (outcome == fuzz.BAD)
    assert faults == []


def _written(folder, seed):
    (folder / seed.name).write_bytes(seed.content)
    return folder / seed.name


def test_damaged_movies_gains_and_defects(tmp_path):
    rng = np.random.default_rng(0)
    no_faults(seeds.movies(rng) + seeds.gains(rng), tmp_path)


def test_damaged_inputs(tiny, tmp_path):
    no_faults(seeds.inputs(tiny.folder), tmp_path)


def test_damaged_results(tmp_path):
    job, work = tmp_path / "job", tmp_path / "work"
    run_job(job, write_project(tmp_path / "project"), recipes=FakeStages().recipes())
    save_amplitudes(job / "amplitudes.json", [Amplitude(np.linspace(0, 0.3, 5), np.ones(5))])
    work.mkdir()
    shutil.copytree(job, work / "job")
    no_faults(seeds.results(job, work), tmp_path)


def test_names_that_no_kind_of_file_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "all_seeds", lambda folder: seeds.gains(np.random.default_rng(0)))
    with pytest.raises(SystemExit, match="no kind of file has 'eerie' in its name; there are "):
        fuzz.run(tmp_path, 5, print, only="eerie")


def test_the_fuzzing_notices(tmp_path):
    """A reader that crashes, asks for gigabytes or says nothing is bad."""
    def broken(path):
        raise KeyError("x")

    def silent(path):
        raise InputError("bad")

    def garbage(path):
        seeds.sane(np.array([np.nan]))

    for read in (broken, silent, garbage):
        assert fuzz.one_case(seeds.Seed("x.bin", b"0123456789", read), 0, tmp_path)[0] == fuzz.BAD
    assert fuzz.one_case(seeds.Seed("x.bin", b"0123456789", lambda path: None), 0, tmp_path)[0] == fuzz.FINE


@pytest.mark.parametrize("kind", range(3))
def test_a_reader_that_ends_the_process_is_found(tmp_path, kind):
    import os
    import signal
    ends = (lambda path: os._exit(3), lambda path: os.kill(os.getpid(), signal.SIGKILL), lambda path: np.zeros(1 << 32))
    bad, good = seeds.Seed("bad.bin", b"0123456789", ends[kind]), seeds.Seed("good.bin", b"0123456789", lambda path: None)
    counts, faults = fuzz.Counter(), []
    fuzz._batch([(bad, 0), (good, 0), (good, 1)], tmp_path, counts, faults, lambda text: None)
    assert counts == {("bad.bin", fuzz.BAD): 1, ("good.bin", fuzz.FINE): 2} and len(faults) == 1
