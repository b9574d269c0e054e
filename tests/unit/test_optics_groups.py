"""Which optics groups of several particle sets are one."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from refmotion_plugin.contract.records import OpticsGroup
from refmotion_plugin.engine.run.leaders import _groups_with_particles
from refmotion_plugin.engine.stages.prepared import Prepared

GROUP = OpticsGroup(1, "a", 300.0, 2.7, 0.1, 1.0, 256)


class Particles:
    reference = np.array([0, 1, 1, 0], np.int32)
    optics_group = np.array([1, 1, 2, 1], np.int32)


def prepared(*optics):
    return Prepared(spec=None, references=(), optics=optics, hyperparameters=None, device=None, threads=1)


def test_the_same_microscope_is_one_group_whatever_the_images():
    job = prepared({1: GROUP}, {1: replace(GROUP, name="b", image_pixel_angstrom=1.5, image_size_px=128), 2: replace(GROUP, number=2)})
    assert [number for number, _ in job.optics_groups] == [1, 2]
    assert job.optics_index(Particles).tolist() == [0, 0, 1, 0]


def test_who_leads_goes_by_groups_that_particles_have():
    job = prepared({1: GROUP, 3: replace(GROUP, number=3, voltage_kilovolt=200.0)}, {1: GROUP, 2: replace(GROUP, number=2)})
    state = SimpleNamespace(prepared=job, inputs=SimpleNamespace(particles={"a": Particles, "b": Particles}))
    assert _groups_with_particles(state) == [0, 1] and job.voltages_kilovolt == [300.0, 300.0, 200.0]


@pytest.mark.parametrize("change", [dict(voltage_kilovolt=200.0), dict(beam_tilt_xy_milliradian=(0.1, 0.0)), dict(mtf_file="k3.star")])
def test_equal_numbers_of_different_microscopes_stay_apart(change):
    job = prepared({1: GROUP}, {1: replace(GROUP, **change), 2: replace(GROUP, number=2)})
    assert [number for number, _ in job.optics_groups] == [1, 1, 2]
    assert job.optics_index(Particles).tolist() == [0, 1, 2, 0]
