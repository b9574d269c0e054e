"""Quick reconstruction: maps from known projections, against RELION's, and a job's particles before and after."""
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest
import torch

from refmotion_plugin.contract.conventions import MOVIE_CONTRAST
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.records import ParticleTable
from refmotion_plugin.engine.maths.fourier import FourierGrid
from refmotion_plugin.engine.optics.backproject import BackProjection, symmetry_operators
from refmotion_plugin.engine.optics.fsc import half_map_fsc
from refmotion_plugin.engine.optics.predict import predict
from refmotion_plugin.engine.optics.reference import build_reference, soft_sphere
from refmotion_plugin.engine.run import reconstruct
from tests.unit.optics_cases import blob_map, blobs, optics_group, particle_table

BOX, PIXEL = 32, 2.0


@pytest.mark.parametrize("name, order", [("C1", 1), ("c4", 4), ("D2", 4), ("D3", 6), ("O", 24)])
def test_point_groups(name, order):
    operators = symmetry_operators(name)
    assert operators.shape == (order, 3, 3) and np.allclose(np.linalg.det(operators), 1.0)
    products = (operators[:, None] @ operators[None]).reshape(-1, 9)
    assert all(np.abs(operators.reshape(-1, 9) - p).sum(1).min() < 1e-6 for p in products)


@pytest.mark.parametrize("name", ["I", "C0", "D", "X2", "T"])
def test_unknown_groups_are_said(name):
    with pytest.raises(InputError, match="not known here"):
        symmetry_operators(name)


def projections(volume, table, group):
    grid = FourierGrid(BOX, PIXEL, BOX)
    dft = predict(build_reference((volume, volume), np.ones_like(volume), PIXEL), table, {1: group}, table.half, grid)
    return MOVIE_CONTRAST * torch.fft.irfft2(dft, s=(BOX, BOX))


@pytest.fixture(scope="module")
def volume():
    return blob_map(BOX, *blobs(BOX, seed=3))


def found(volume, table, group, operators=symmetry_operators("C1"), images=None):
    sums = BackProjection(BOX, PIXEL, operators)
    sums.add(projections(volume, table, group) if images is None else images, table, group)
    return sums.volume()


def agreement(a, b):
    """FSC within a sphere, for without padding the corners of the box are not to be trusted."""
    inside = soft_sphere(BOX, 10, 3)
    return half_map_fsc(torch.as_tensor(a) * inside, torch.as_tensor(b) * inside)[0][1:12].numpy()


def test_a_map_comes_back_from_its_projections(volume):
    group = optics_group(beam_tilt_xy_milliradian=(0.3, -0.2))
    table = particle_table(300, seed=1)
    assert agreement(found(volume, table, group), volume).min() > 0.95


def test_origins_are_taken_out(volume):
    table = particle_table(120, seed=1)
    shifted = particle_table(120, seed=1, origin_yx_angstrom=np.tile([2 * PIXEL, -PIXEL], (120, 1)))
    images = torch.roll(projections(volume, table, optics_group()), (-2, 1), (1, 2))        # the centre lies at minus the origin
    assert agreement(found(volume, shifted, optics_group(), images=images), found(volume, table, optics_group())).min() > 0.99
    assert agreement(found(volume, table, optics_group(), images=images), volume).min() < 0.9


@pytest.mark.parametrize("name, turns", [("C4", 4), ("C3", 3)])
def test_symmetry_is_every_particle_in_all_its_poses(volume, name, turns):
    """A turn about z by 360 / n is the same as rot + 360 / n."""
    table = particle_table(60, seed=2)
    images = projections(volume, table, optics_group())
    poses = [replace(table, rotation_zyz_degree=table.rotation_zyz_degree + [360.0 / turns * k, 0, 0]) for k in range(turns)]
    one_by_one = found(volume, ParticleTable.concatenate(poses), optics_group(), images=images.repeat(turns, 1, 1))
    assert agreement(found(volume, table, optics_group(), symmetry_operators(name), images), one_by_one).min() > 0.98
    assert agreement(found(volume, table, optics_group(), images=images), one_by_one).min() < 0.9


@pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="needs relion_reconstruct")
def test_relion_finds_the_same_map(tiny, tmp_path):
    images = reconstruct.particles_of(tiny.folder / "particles.star", 0)
    ours = reconstruct.reconstruct(images, np.arange(len(images.names)), tiny.folder / "particles.star", None, symmetry_operators("O"))
    subprocess.run(["relion_reconstruct", "--i", "particles.star", "--o", str(tmp_path / "r.mrc"), "--ctf", "--sym", "O", "--pad", "1", "--subset", "1"],
                   cwd=tiny.folder, check=True, capture_output=True)
    with mrcfile.open(tmp_path / "r.mrc") as file:
        theirs = file.data.copy()
    with mrcfile.open(tiny.folder / "mask.mrc") as file:
        mask = file.data.copy()
    curve = half_map_fsc(ours.volumes[0] * mask, torch.from_numpy(theirs * mask))[0][1:33].numpy()       # to 6 A
    assert curve.min() > 0.9 and curve.mean() > 0.97


def test_a_job_before_and_after(tiny, tmp_path):
    star = tiny.folder / "particles.star"
    results = SimpleNamespace(layout=JobLayout(tmp_path), spec=tiny.prepared.spec, particle_stars=lambda: [star])
    before, after = reconstruct.compare_job(results, "O")
    assert before.resolution_angstrom == after.resolution_angstrom and 4.0 <= after.resolution_angstrom < 15.0
    results.particle_stars = lambda: []
    with pytest.raises(InputError, match="no polished particles"):
        reconstruct.compare_job(results, "O")
