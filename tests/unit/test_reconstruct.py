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
from refmotion_plugin.contract.records import ParticleTable
from refmotion_plugin.engine.maths.fourier import FourierGrid
from refmotion_plugin.engine.optics import backproject
from refmotion_plugin.engine.optics.backproject import BackProjection
from refmotion_plugin.engine.optics.fsc import half_map_fsc
from refmotion_plugin.engine.optics.predict import predict
from refmotion_plugin.engine.optics.reference import build_reference, soft_sphere
from refmotion_plugin.engine.optics.symmetry import symmetry_operators
from refmotion_plugin.engine.run import reconstruct
from refmotion_plugin.engine.stages import reconstruct as stage
from tests.pretend_gpu import OnDevice, PretendGpu
from tests.unit.optics_cases import blob_map, blobs, optics_group, particle_table

BOX, PIXEL = 32, 2.0


def projections(volume, table, group):
    grid = FourierGrid(BOX, PIXEL, BOX)
    dft = predict(build_reference((volume, volume), np.ones_like(volume), PIXEL), table, {1: group}, table.half, grid)
    return MOVIE_CONTRAST * torch.fft.irfft2(dft, s=(BOX, BOX))


@pytest.fixture(scope="module")
def volume():
    return blob_map(BOX, *blobs(BOX, seed=3))


def found(volume, table, group, operators=symmetry_operators("C1"), images=None):
    sums = BackProjection(BOX, PIXEL, operators)
    sums.add([projections(volume, table, group) if images is None else images], table, group)
    return sums.volumes()[0]


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


def test_kinds_of_images_share_poses_and_give_the_maps_of_each_alone(volume):
    table = particle_table(40, seed=4)
    sharp = projections(volume, table, optics_group())
    other = torch.roll(sharp, 3, 0)
    sums = BackProjection(BOX, PIXEL, symmetry_operators("D2"), kinds=2)
    sums.add([sharp, other], table, optics_group())
    for made, images in zip(sums.volumes(), (sharp, other)):
        alone = found(volume, table, optics_group(), symmetry_operators("D2"), images)
        assert float((made - alone).abs().max()) < 1e-4 * float(alone.abs().max())


def test_planes_are_symmetrised_piece_by_piece(volume, monkeypatch):
    table = particle_table(40, seed=4)
    whole = found(volume, table, optics_group(), symmetry_operators("I3"))
    monkeypatch.setattr(backproject, "PLANES_BYTES", 1)
    assert torch.equal(found(volume, table, optics_group(), symmetry_operators("I3")), whole)


def test_finer_images_are_cropped_to_the_map(volume):
    table = particle_table(200, seed=1)
    grid = FourierGrid(2 * BOX, PIXEL / 2, BOX)
    dft = predict(build_reference((volume, volume), np.ones_like(volume), PIXEL), table, {1: optics_group()}, table.half, grid)
    fine = torch.zeros(len(table), 2 * BOX, BOX + 1, dtype=torch.complex64)
    fine[:, :BOX // 2, :BOX // 2 + 1], fine[:, -BOX // 2:, :BOX // 2 + 1] = dft[:, :BOX // 2], dft[:, BOX // 2:]
    images = MOVIE_CONTRAST * torch.fft.irfft2(fine, s=(2 * BOX, 2 * BOX))
    assert agreement(found(volume, table, optics_group(), images=images), found(volume, table, optics_group())).min() > 0.98


def test_on_a_gpu_the_same_map_comes_out_and_the_host_does_not_wait_for_every_image(volume):
    table, waits = particle_table(64, seed=4), []
    images, group = projections(volume, table, optics_group()), optics_group(beam_tilt_xy_milliradian=(0.3, -0.2))
    expected = found(volume, table, group, symmetry_operators("T"), images)
    with PretendGpu() as gpu:
        sums = BackProjection(BOX, PIXEL, symmetry_operators("T"), device="cuda:0")
        for part in (slice(0, 8), slice(8, 64)):
            gpu.waits.clear()
            sums.add([images[part]], table[part], group)
            waits.append(sum(gpu.waits.values()))
        made = sums.volumes()[0]
    assert not isinstance(made, OnDevice) and float((made - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    assert waits[1] <= waits[0]


RELION = pytest.mark.skipif(shutil.which("relion_reconstruct") is None, reason="needs relion_reconstruct")


@RELION
@pytest.mark.parametrize("name, least, mean", [("C1", 0.85, 0.93), ("T", 0.9, 0.97), ("O", 0.9, 0.97), ("I2", 0.9, 0.97), ("I3", 0.9, 0.97)])
def test_relion_finds_the_same_map(tiny, tmp_path, name, least, mean):
    """Of whatever group is asked for: what a wrong group makes of these particles, both programs make of them."""
    star = tiny.folder / "particles.star"
    images, _ = reconstruct.images_of(star, tiny.prepared.spec, 0)
    images = replace(images, kinds=images.kinds[-1:])
    ours = stage.compare_images(images, None, symmetry_operators(name)).volumes[0][0]
    subprocess.run(["relion_reconstruct", "--i", "particles.star", "--o", str(tmp_path / "r.mrc"), "--ctf", "--sym", name, "--pad", "1", "--subset", "1"],
                   cwd=tiny.folder, check=True, capture_output=True)
    with mrcfile.open(tmp_path / "r.mrc") as file:
        theirs = file.data.copy()
    with mrcfile.open(tiny.folder / "mask.mrc") as file:
        mask = file.data.copy()
    curve = half_map_fsc(ours * mask, torch.from_numpy(theirs * mask))[0][1:33].numpy()       # to 6 A
    assert curve.min() > least and curve.mean() > mean


def test_a_mask_on_another_grid_is_put_on_that_of_the_images():
    fine = soft_sphere(64, 20, 4)
    coarse = stage.on_grid(fine, 1.0, 40, 2.0)              # 64 A of mask in 80 A of map
    expected = soft_sphere(40, 10, 2)
    assert coarse.shape == (40, 40, 40) and float((coarse - expected).abs().max()) < 0.05 and float(coarse[0].max()) == 0.0


def test_the_map_is_as_fine_as_is_looked_at_and_as_fits_into_memory(caplog):
    images = SimpleNamespace(box_px=300, pixel_angstrom=1.0)
    assert stage._map_grid(images, None, None) == (300, 1.0)
    assert stage._map_grid(images, None, 4.0) == (150, 2.0) and not caplog.records
    box, pixel = stage._map_grid(images, 60 * 100 ** 3 + 1000, 4.0)
    assert box == 100 and box * pixel == pytest.approx(300.0) and "the FSC ends at 6.00" in caplog.text
    assert stage._map_grid(images, 0, None)[0] == stage.SMALLEST_BOX


def test_where_the_fsc_does_not_fall_the_whole_images_are_looked_at(tiny):
    """A coarse reference says little of how fine its particles are."""
    images, _ = reconstruct.images_of(tiny.folder / "particles.star", tiny.prepared.spec, 0)
    compare = lambda **limits: stage.compare_images(images, None, symmetry_operators("O"), **limits)
    whole, again = compare(), compare(finest_angstrom=15.0)
    enough = compare(finest_angstrom=0.7 * max(whole.change.before_angstrom, whole.change.after_angstrom))
    assert whole.fall and len(again.frequency_per_angstrom) == len(whole.frequency_per_angstrom) and again.change.after_angstrom == whole.change.after_angstrom
    assert len(enough.frequency_per_angstrom) < len(whole.frequency_per_angstrom)
    little = compare(finest_angstrom=15.0, room=60 * 32 ** 3)
    assert len(little.frequency_per_angstrom) == 17 and not little.fall


def test_memory_that_is_too_small_leaves_it_to_the_cpu(tiny, caplog):
    images, _ = reconstruct.images_of(tiny.folder / "particles.star", tiny.prepared.spec, 0)
    with PretendGpu(capacity=2 ** 20):
        made = stage.compare_images(images, None, symmetry_operators("C1"), "cuda:0")
    assert made.particles == 24 and "made on the CPU" in caplog.text
