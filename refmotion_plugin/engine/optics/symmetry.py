"""Point groups as rotation matrices, oriented as RELION orients them."""
import re

import numpy as np

from refmotion_plugin.contract.errors import InputError

GOLDEN = (1 + 5 ** 0.5) / 2
KNOWN = "C1, C2 ..., D2, D3 ..., T, O, I (the same as I2), I1, I2, I3 or I4"
Z, X, DIAGONAL = (0, 0, 1), (1, 0, 0), (1, 1, 1)
# A second generator each. T: a three-fold axis along z and a two-fold one in the plane x = 0. O: four-fold axes along x, y, z.
# I1 and I2: two-fold axes along x, y, z, which leaves two places for the five-fold ones. I3 and I4: a five-fold axis along z and a two-fold one
# in the plane y = 0, to either side.
_GROUPS = {"T": ((3, Z), (2, (0, 2 ** 0.5, 1))), "O": ((4, Z), (3, DIAGONAL)),
           "I1": ((2, Z), (3, DIAGONAL), (5, (GOLDEN, 0, -1))), "I2": ((2, Z), (3, DIAGONAL), (5, (1, 0, GOLDEN))),
           "I3": ((5, Z), (2, (-1, 0, GOLDEN))), "I4": ((5, Z), (2, (1, 0, GOLDEN)))}


def symmetry_operators(name):
    """Rotation matrices (n, 3, 3) of a point group: Cn about z, Dn with a two-fold about x, T, O, I1 to I4 as said above.

    Raises InputError for other names.
    """
    generators = [_about(axis, 2 * np.pi / fold) for fold, axis in _generators(name)]
    group, fresh = [np.eye(3)], [np.eye(3)]
    while fresh:
        made, fresh = [g @ h for g in generators for h in fresh], []
        for m in made:
            if not any(np.allclose(m, other, atol=1e-6) for other in group):
                group.append(m)
                fresh.append(m)
    return np.stack(group)


def symmetry_steps(operators):
    """Cyclic subgroups whose product is the group: a list of (fold - 1, 3, 3), each without the identity.

    A sum over the group is a sum over the first, of that one over the second, and so on: 8 turns for the 60 of an icosahedron. Turns that
    map a cubic grid onto itself are preferred, since they need no interpolation.
    """
    table = np.array([[np.abs(operators - a @ b).max((1, 2)).argmin() for b in operators] for a in operators])
    identity = int(np.abs(operators - np.eye(3)).max((1, 2)).argmin())
    cycles = []
    for first in range(len(operators)):
        cycle, power = [], first
        while power != identity:
            cycle.append(power)
            power = int(table[power, first])
        cycles.append(cycle)
    order = sorted((i for i in range(len(cycles)) if cycles[i]), key=lambda i: (not on_grid_again(operators[i]), -len(cycles[i])))
    chosen = _covering([identity], [cycles[i] for i in order], table, len(operators))
    return [operators[cycle] for cycle in chosen]


def on_grid_again(operator):
    """Whether a turn maps a cubic grid onto itself."""
    return bool(np.allclose(operator, np.round(operator), atol=1e-6))


def _covering(reached, cycles, table, size):
    """Cycles whose products with ``reached`` and each other are all elements, none twice; None if there are no such ones."""
    if len(reached) == size:
        return []
    for cycle in cycles:
        more = {int(table[a, b]) for a in reached for b in cycle} | set(reached)
        if len(more) == len(reached) * (len(cycle) + 1):
            rest = _covering(sorted(more), cycles, table, size)
            if rest is not None:
                return [cycle] + rest
    return None


def _generators(name):
    wanted = name.strip().upper()
    if wanted == "I":
        wanted = "I2"
    if wanted in _GROUPS:
        return _GROUPS[wanted]
    found = re.fullmatch(r"([CD])(\d{1,3})", wanted)
    if found is None or int(found.group(2)) == 0:
        raise InputError("point group %r is not known here: give %s" % (name, KNOWN))
    return ((int(found.group(2)), Z),) + (((2, X),) if found.group(1) == "D" else ())


def _about(axis, angle):
    x, y, z = np.asarray(axis, dtype=np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
