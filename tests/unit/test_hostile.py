"""Inputs made to do harm: names that lead elsewhere, code in data, bombs, orders to terminals and browsers, files without an end."""
import json
import os
import pickle
import re
import time
import zipfile

import numpy as np
import pytest

from refmotion_plugin.contract.averages import bare_names
from refmotion_plugin.contract.errors import InputError, MovieError
from refmotion_plugin.contract.exchange import read_weights
from refmotion_plugin.contract.layout import JobLayout, read_json
from refmotion_plugin.contract.records import LONGEST_NAME_BYTES
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.contract.star import read_table, read_tables
from refmotion_plugin.contract.store import load_thumbnail, load_trajectories, load_weights, save_thumbnail
from refmotion_plugin.engine.movies.gain import load_gain
from refmotion_plugin.engine.movies.readers import open_movie
from refmotion_plugin.engine.optics.volumes import read_map
from refmotion_plugin.engine.report import write_report
from refmotion_plugin.engine.run.inputs import read_inputs
from refmotion_plugin.engine.run.job import run_job

from tests.unit.job_stand_ins import FakeStages, write_project
from tests.unit.test_movies_writers import mrc_bytes

NAMES = ["../../../tmp/escaped_0.mrc", "/etc/escaped_1.mrc", "M/<script>alert(2)</script>.mrc", "M/$x^{$a$_b_3.mrc", "M/%s%n{}_4.mrc",
         "M/" + "long" * 500 + "_5.mrc", "M/..._6.mrc"]


class Bomb:
    """What unpickling it would do."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.fixture
def hostile(tmp_path):
    """A project whose micrographs have these names; (spec, folder of the job)."""
    spec = write_project(tmp_path / "project", movies=len(NAMES))
    for path in (tmp_path / "project").glob("*.star"):
        text = path.read_text()
        for i, name in enumerate(NAMES):
            text = text.replace("M/mic_%d.mrc" % i, name)
        path.write_text(text)
    return spec, tmp_path / "OUT"


class NamedStages(FakeStages):
    """Stand-ins that do not take a movie's number from its name; one movie fails."""

    def _call(self, name, movie=None):
        self.calls.append(name)
        if name == "align" and "script" in movie.micrograph:
            raise MovieError("%s is <img src=x onerror=alert(1)> broken $x^{$" % movie.micrograph)


def everything(folder):
    return {str(path) for path in folder.rglob("*")}


def test_names_lead_nowhere_and_are_shown_as_text(hostile, tmp_path):
    spec, out = hostile
    before = everything(tmp_path)
    outcome = run_job(out, spec, recipes=NamedStages().recipes())
    assert list(outcome.failed) == [NAMES[2]] and outcome.particles_written == 2 * (len(NAMES) - 1)
    assert all(path.startswith(str(out)) for path in everything(tmp_path) - before)
    keys = [m.key for m in JobResults(out).movies()]
    assert len(set(keys)) == len(NAMES) and all(len(k.encode()) <= LONGEST_NAME_BYTES and "/" not in k and k[0] != "." for k in keys)
    written = read_table(out / "particles.star", "particles")
    assert [n for n in NAMES if n != NAMES[2]] * 2 == written.columns["rlnMicrographName"]
    page = write_report(JobResults(out)).read_text()
    assert "<script" not in page and "<img src=x" not in page and "&lt;script&gt;" in page
    words = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page).lower().replace("default", "")        # pictures spell words by chance
    assert "could not be drawn" not in words and "fault" not in words


def test_movies_that_would_share_a_folder_are_told(tmp_path):
    spec = write_project(tmp_path / "project", movies=2)
    for path in (tmp_path / "project").glob("*.star"):
        path.write_text(path.read_text().replace("M/mic_1.mrc", "M_mic_0.mrc"))
    with pytest.raises(InputError, match="M/mic_0.mrc and M_mic_0.mrc would share the folder M_mic_0"):
        read_inputs(spec, FakeStages._outside)


def test_averages_are_named_by_what_makes_a_file(tmp_path):
    class Movie:
        def __init__(self, micrograph):
            self.micrograph, self.key = micrograph, "key%d" % names.index(micrograph)
    names = ["M/good-1_2.3+4.mrc", "M/..", "M/a b.mrc", "M/a@b.mrc", "M/" + "x" * 300 + ".mrc", "M/-rf.mrc", "M/same.mrc", "N/same.mrc"]
    assert bare_names([Movie(n) for n in names]) == ["good-1_2.3+4"] + ["key%d" % n for n in range(1, 8)]


@pytest.mark.parametrize("load", [load_weights, load_trajectories, load_thumbnail, read_weights])
def test_nothing_is_unpickled(tmp_path, load, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = np.array([Bomb()], dtype=object)
    np.savez(tmp_path / "x.npz", schema=objects, image=objects)
    np.save(tmp_path / "x.npy", objects)
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Bomb()))
    for name in ("x.npz", "raw.npz") + (("x.npy",) if load is read_weights else ()):
        try:
            assert load(tmp_path / name) is None
        except InputError as error:
            assert name in str(error)
    assert not (tmp_path / "unpickled").exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("refmotion_plugin.contract.reading.MOST_ARRAY_BYTES", 1 << 24)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("weight.npy", "w", force_zip64=True) as file:
        file.write(b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (33554432,), }\n".rjust(70))
        for _ in range(32):
            file.write(bytes(1 << 20))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 16
    with pytest.raises(InputError, match="its arrays would take 33554"):
        load_weights(tmp_path / "bomb.npz")


@pytest.mark.parametrize("shape", ["(9223372036854775807,)", "(65536, 65536, 65536)", "(-1,)", "(4,)"])
def test_a_header_that_promises_too_much_asks_for_no_memory(tmp_path, shape):
    header = ("{'descr': '<f8', 'fortran_order': False, 'shape': %s, }" % shape).ljust(117).encode() + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(InputError, match="not a NumPy file"):
        read_weights(tmp_path / "x.npy", [1.0], 1.0)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("weight.npy", data)
    with pytest.raises(InputError, match="header promises|negative|cannot be read"):
        load_weights(tmp_path / "x.npz")


@pytest.mark.parametrize("character", ["\x00", "\x1b]0;order\x07", "\x08", "\x7f"])
def test_orders_to_a_terminal_are_no_names(tmp_path, character):
    path = tmp_path / "x.star"
    path.write_text("data_particles\n\nloop_\n_rlnMicrographName\nM/%s.mrc\n" % character)
    with pytest.raises(InputError, match="control character .* in line 5"):
        read_tables(path)


def test_a_quoted_value_ends_with_its_line(tmp_path):
    path = tmp_path / "x.star"
    path.write_text('data_particles\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n"a 1\nb" 2\n')
    values = [value for column in read_table(path, "particles").columns.values() for value in column]
    assert len(values) == 4 and not any("\n" in value for value in values)


def test_many_columns_and_a_column_twice(tmp_path):
    path, count = tmp_path / "x.star", 100000
    path.write_text("data_particles\n\nloop_\n" + "".join("_rln%d\n" % i for i in range(count)) + "1 " * count + "\n")
    start = time.process_time()
    assert len(read_table(path, "particles").columns) == count and time.process_time() - start < 20
    path.write_text("data_particles\n\nloop_\n_rlnA\n_rlnA\n1 2\n")
    with pytest.raises(InputError, match="names the column rlnA twice"):
        read_tables(path)


def test_deep_json(tmp_path):
    path = tmp_path / "job.json"
    for text in ("[" * 100000, '{"a":' * 100000, "1" * 100000):
        path.write_text(text)
        assert read_json(path) is None
        with pytest.raises(InputError, match="is not JSON|can't represent") as caught:
            JobSpec.read(path)
        assert len(str(caught.value)) < 1000
    path.write_text(json.dumps({"inputs": {"x" * 100000: 1}}))
    with pytest.raises(InputError) as caught:
        JobSpec.read(path)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_pipes_and_devices_are_not_read(tmp_path):
    """A pipe would be waited for, /dev/zero has no end."""
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", "/dev/zero"):
        for ending in ("star", "json", "npz", "npy", "mrc", "tif", "eer"):
            path = tmp_path / ("link." + ending)
            path.unlink(missing_ok=True)
            path.symlink_to(target)
        path = str(tmp_path / "link.")
        for read, what in ((read_tables, "star"), (JobSpec.read, "json"), (load_weights, "npz"), (read_weights, "npy"), (read_map, "mrc"),
                           (open_movie, "tif"), (open_movie, "eer"), (lambda p: load_gain(p, (4, 4)), "mrc")):
            with pytest.raises((InputError, MovieError)):
                read(path + what)
        assert read_json(path + "json") is None and load_thumbnail(path + "npz") is None


def test_a_map_that_promises_too_much(tmp_path):
    import gzip
    header = bytearray(mrc_bytes(np.zeros((1, 2, 2), np.float32)))
    header[:16] = np.array([4000, 4000, 4000, 2], "<i4").tobytes()
    (tmp_path / "map.mrc").write_bytes(bytes(header))
    with gzip.open(tmp_path / "map.mrc.gz", "wb") as file:
        file.write(bytes(header) + bytes(1 << 20))
    for name in ("map.mrc", "map.mrc.gz"):
        with pytest.raises(InputError, match="is not an MRC file|too many for a compressed file"):
            read_map(tmp_path / name)


def test_a_thumbnail_is_an_image_or_none(tmp_path):
    save_thumbnail(tmp_path / "a.npz", np.zeros((3, 4), np.uint8), 2.0)
    image, pixel = load_thumbnail(tmp_path / "a.npz")
    assert image.shape == (3, 4) and pixel == 2.0
    save_thumbnail(tmp_path / "a.npz", np.zeros((3, 4, 5), np.uint8), 2.0)
    assert load_thumbnail(tmp_path / "a.npz") is None and load_thumbnail(tmp_path / "none.npz") is None
    assert JobLayout(tmp_path).thumbnail("k").name == "thumbnail.npz"
