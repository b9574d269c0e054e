"""Objects that the host makes without arguments, stores and shows."""
from dataclasses import fields, replace

import numpy as np

from refmotion_plugin.contract.records import DoseWeights
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters


def test_hyperparameters_keep_every_field():
    item = MotionHyperparameters()
    assert "empty" in str(item)
    item.setRecord(DEFAULT_HYPERPARAMETERS)
    copy = item.clone()
    for field in fields(DEFAULT_HYPERPARAMETERS):
        assert copy.getAttributeValue("_" + field.name) == getattr(DEFAULT_HYPERPARAMETERS, field.name)
    assert "velocity %.3g," % DEFAULT_HYPERPARAMETERS.velocity_sigma in str(copy)
    assert copy.holds(DEFAULT_HYPERPARAMETERS) and not copy.holds(replace(DEFAULT_HYPERPARAMETERS, acceleration_sigma=0.5))


def test_dose_weights_say_what_they_cover():
    item = EmpiricalDoseWeights()
    assert "empty" in str(item) and item.getFiles() == set()
    frames = np.arange(1.0, 4.0)[None]
    item.setRecord(DoseWeights(np.ones((1, 3, 4)), np.linspace(0, 0.25, 4), np.array([1.0, 2.0, 3.0]), frames, frames, frames, frames, "sum", "x"))
    item.setFileName("extra/weights.npz")
    assert str(item) == "EmpiricalDoseWeights (3 frames, the last at 3.0 e/Å², B-factor 1 to 3 Å²)" and item.getFiles() == {"extra/weights.npz"}
