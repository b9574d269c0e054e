"""Point groups: they are groups, and oriented as RELION orients them."""
import re
import shutil
import subprocess

import numpy as np
import pytest

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.spec import OutputSpec
from refmotion_plugin.engine.optics.symmetry import on_grid_again, symmetry_operators, symmetry_steps

ORDERS = {"C1": 1, "c4": 4, "C3": 3, "D2": 4, "D3": 6, "D7": 14, "T": 12, "O": 24, "I": 60, "I1": 60, "I2": 60, "I3": 60, "i4": 60}


def missing(some, among):
    """Those of ``some`` matrices that are not ``among`` others."""
    return [m for m in some if np.abs(among - m).max((1, 2)).min() > 1e-4]


@pytest.mark.parametrize("name", list(ORDERS))
def test_they_are_groups_of_rotations(name):
    operators = symmetry_operators(name)
    assert operators.shape == (ORDERS[name], 3, 3) and np.allclose(np.linalg.det(operators), 1.0)
    products = (operators[:, None] @ operators[None]).reshape(-1, 3, 3)
    assert missing(products[::7], operators) == [] and OutputSpec(symmetry=name).symmetry == name


@pytest.mark.parametrize("name, turns", [("C1", 0), ("C7", 6), ("D3", 3), ("T", 4), ("O", 6), ("I2", 8), ("I4", 8)])
def test_steps_reach_every_element_once(name, turns):
    operators, steps = symmetry_operators(name), symmetry_steps(symmetry_operators(name))
    reached = np.eye(3)[None]
    for step in steps:
        reached = np.concatenate([reached] + [reached @ g for g in step])
    assert len(reached) == len(operators) and missing(operators, reached) == [] and sum(map(len, steps)) == turns
    if name in ("O", "I2"):
        assert sum(not on_grid_again(g) for step in steps for g in step) == (0 if name == "O" else 4)


@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="needs relion_refine")
@pytest.mark.parametrize("name", list(ORDERS))
def test_relion_has_the_same_matrices(name):
    said = subprocess.run(["relion_refine", "--print_symmetry_ops", "--sym", name.upper()], capture_output=True, text=True).stdout
    theirs = np.array([[float(v) for v in line.split()] for line in said.split("\n")
                       if re.fullmatch(r"[-+.\de\s]+", line) and len(line.split()) == 3]).reshape(-1, 3, 3)
    assert len(theirs) == ORDERS[name] and missing(theirs, symmetry_operators(name)) == []


@pytest.mark.parametrize("name", ["I5", "C0", "D", "X2", "TD", "C1000", ""])
def test_unknown_groups_are_said(name):
    with pytest.raises(InputError, match="not known here"):
        symmetry_operators(name)
    with pytest.raises(ValueError, match="was expected"):
        OutputSpec(symmetry=name)
