"""Files of a job: whole or not at all, and marks that know what a result was made of."""
import errno
import os
from dataclasses import replace

import numpy as np
import pytest

from refmotion_plugin.contract import layout as files
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import (JobLayout, atomic_path, atomic_write, content_hash, file_stamp, fingerprint, is_done,
                                              located, mark_done, particles_hash, read_json, write_json)
from refmotion_plugin.contract.records import ParticleTable
from refmotion_plugin.contract.spec import JobSpec


def table(n=3):
    zeros = np.zeros(n)
    return ParticleTable(row=np.arange(n), reference=np.zeros(n, np.int32), micrograph=np.array(["a"] * n),
                         coordinate_yx_angstrom=np.zeros((n, 2)), origin_yx_angstrom=np.zeros((n, 2)),
                         rotation_zyz_degree=np.zeros((n, 3)), half=np.ones(n, np.int8), optics_group=np.ones(n, np.int32),
                         defocus_u_angstrom=zeros, defocus_v_angstrom=zeros, defocus_angle_degree=zeros, phase_shift_degree=zeros,
                         ctf_bfactor_A2=zeros, ctf_scale=zeros + 1)


def job(**inputs):
    return JobSpec.build({"inputs": dict({"movies": "m.star"}, **inputs), "references": [{"particles": "p", "half1": "1", "half2": "2"}]})


def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with atomic_write(path, "w") as file:
        file.write("first")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as file:
        file.write("half of the sec")
        raise RuntimeError
    assert path.read_text() == "first" and os.listdir(tmp_path / "deep") == ["file.txt"]


def test_files_get_the_usual_permissions(tmp_path):
    mask = os.umask(0o022)
    try:
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(mask)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="no space left on disk while writing .*x.npz: free some"):
        with atomic_path(tmp_path / "x.npz"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        with atomic_write(tmp_path / "file" / "x.json", "w"):
            pass


def test_broken_json_is_none(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1')
    assert read_json(tmp_path / "x.json") is None and read_json(tmp_path / "none") is None


def test_done_markers(tmp_path):
    result = tmp_path / "r.npz"
    mark_done(tmp_path / "d.json", "abc", particles=3)
    assert is_done(tmp_path / "d.json", "abc") and not is_done(tmp_path / "d.json", "abd")
    assert not is_done(tmp_path / "d.json", "abc", result)
    result.write_text("")
    assert is_done(tmp_path / "d.json", "abc", result) and not is_done(tmp_path / "none.json", "abc")


def test_fingerprints_follow_what_a_stage_reads():
    base = fingerprint("align", job(), "1.0", particles="x")
    assert base == fingerprint("align", job(), "1.0", particles="x")
    assert base == fingerprint("align", job(preflight=False), "1.0", particles="x")
    other = [fingerprint("polish", job(), "1.0", particles="x"), fingerprint("align", job(), "1.1", particles="x"),
             fingerprint("align", job(), "1.0", particles="y"), fingerprint("align", job(first_frame=2), "1.0", particles="x")]
    assert len(set(other + [base])) == 5


def test_the_seed_decides_the_search_alone():
    of = lambda stage, seed: fingerprint(stage, job().model_copy(update={"seed": seed}), "1.0")
    assert of("search", 1) != of("search", 2)
    assert all(of(stage, 1) == of(stage, 2) for stage in ("calibrate", "align", "weigh", "polish"))


def test_fingerprints_follow_the_maps(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = fingerprint("align", job(), "1")
    (tmp_path / "1").write_text("map")
    assert fingerprint("align", job(), "1") != base


@pytest.mark.parametrize("name", ["row", "micrograph", "half", "coordinate_yx_angstrom", "ctf_scale"])
def test_particle_hashes_follow_every_column(name):
    one = table()
    values = getattr(one, name)
    other = np.array(["b"] * 3) if name == "micrograph" else values + 1
    assert particles_hash(one) == particles_hash(table()) != particles_hash(replace(one, **{name: other}))


def test_stamps_do_not_depend_on_the_folder(tmp_path, monkeypatch):
    (tmp_path / "f").write_text("abc")
    here = file_stamp(tmp_path / "f")
    monkeypatch.chdir(tmp_path)
    assert file_stamp("f") == here and here[:2] == ["f", 3] and file_stamp(None) is None and file_stamp("none")[1] is None
    assert content_hash("f") == content_hash(tmp_path / "f") and content_hash("none") is None


def test_files_are_found_from_the_folders_above(tmp_path, monkeypatch):
    (tmp_path / "Movies").mkdir()
    (tmp_path / "Movies" / "a.tiff").write_text("")
    star = tmp_path / "MotionCorr" / "job002" / "c.star"
    assert located("Movies/a.tiff", star) == str(tmp_path / "Movies" / "a.tiff")
    assert located("Movies/b.tiff", star) == "Movies/b.tiff" and located(None, star) is None
    monkeypatch.chdir(tmp_path)
    assert located("Movies/a.tiff", star) == "Movies/a.tiff"


def test_names_of_a_job():
    layout = JobLayout("OUT")
    assert str(layout.particles()) == "OUT/particles.star" and str(layout.particles(1, 2)) == "OUT/particles_2.star"
    assert str(layout.polished("m", 0, 1)) == "OUT/movies/m/polished.mrcs" and layout.polished("m", 1, 3).name == "polished_2.mrcs"
    assert layout.bfactors().name == "bfactors.star" and layout.bfactors(1).name == "bfactors_2.star"
    assert files.SCHEMA == 1
