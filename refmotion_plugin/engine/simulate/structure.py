"""Pseudo-proteins: chains of residues made of atoms, at the density of protein."""
from __future__ import annotations

import dataclasses
import itertools

import numpy as np

RESIDUE_STEP_ANGSTROM = 3.8
BOND_ANGSTROM = 1.5
ATOMS_PER_RESIDUE = 8
VOLUME_PER_RESIDUE_A3 = 178.0  # 110 Da at protein density, with the solvent of a loose fold
CLEARANCE_ANGSTROM = 4.5


@dataclasses.dataclass(frozen=True)
class Structure:
    """Heavy-atom positions ``xyz_angstrom (n, 3)`` about the centre of the map."""

    xyz_angstrom: np.ndarray
    radius_angstrom: float
    symmetry: str


def octahedral_rotations() -> np.ndarray:
    """The 24 proper rotations of the cube, four-folds along x, y, z: (24, 3, 3)."""
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), order] = signs
            if np.linalg.det(matrix) > 0:
                found.append(matrix)
    return np.array(sorted(found, key=lambda m: -np.trace(m)))  # identity first


def octahedral_cage(rng: np.random.Generator, outer_angstrom: float) -> Structure:
    """A hollow cage of 24 chains, 432 kDa for an outer radius of 61 A."""
    inner = 0.62 * outer_angstrom
    rotations = octahedral_rotations()
    centre = np.array([0.85, 0.42, 0.20])
    walls = centre - np.einsum("rij,j->ri", rotations[1:], centre)
    walls /= np.linalg.norm(walls, axis=1, keepdims=True)

    def inside(points: np.ndarray) -> np.ndarray:
        radius = np.linalg.norm(points, axis=-1)
        in_cell = (points @ walls.T > 0.5 * CLEARANCE_ANGSTROM - 0.4).all(axis=-1)
        return in_cell & (radius > inner) & (radius < outer_angstrom - 3.0)

    volume = 4 / 3 * np.pi * (outer_angstrom**3 - inner**3)
    residues = max(4, round(volume / 24 / VOLUME_PER_RESIDUE_A3))
    subunit = _grow_atoms(rng, _grow_chains(rng, residues, inside, outer_angstrom))
    atoms = np.einsum("rij,nj->rni", rotations, subunit).reshape(-1, 3)
    return Structure(atoms, outer_angstrom, "O")


def globular_complex(rng: np.random.Generator, outer_angstrom: float) -> Structure:
    """A lopsided globule without symmetry (lobes cut by random planes)."""
    planes = rng.normal(size=(5, 3))
    planes /= np.linalg.norm(planes, axis=1, keepdims=True)
    depth = rng.uniform(0.45, 0.8, size=5) * outer_angstrom

    def inside(points: np.ndarray) -> np.ndarray:
        kept = (points @ planes.T < depth).all(axis=-1)
        return kept & (np.linalg.norm(points, axis=-1) < outer_angstrom - 3.0)

    trial = rng.uniform(-outer_angstrom, outer_angstrom, size=(20000, 3))
    volume = inside(trial).mean() * (2 * outer_angstrom) ** 3
    residues = max(4, round(volume / VOLUME_PER_RESIDUE_A3))
    atoms = _grow_atoms(rng, _grow_chains(rng, residues, inside, outer_angstrom))
    return Structure(atoms, outer_angstrom, "C1")


def _grow_chains(rng, residues, inside, outer_angstrom) -> np.ndarray:
    """Self-avoiding random walks until ``residues`` points are placed: (residues, 3)."""
    points = np.empty((0, 3))
    last, clearance = None, CLEARANCE_ANGSTROM
    while len(points) < residues:
        if last is None:  # a new chain starts anywhere with room
            candidates = rng.uniform(-outer_angstrom, outer_angstrom, size=(2000, 3))
        else:
            step = rng.normal(size=(40, 3))
            candidates = last + RESIDUE_STEP_ANGSTROM * step / np.linalg.norm(step, axis=1, keepdims=True)
        candidates = candidates[inside(candidates)]
        others = points if last is None else points[:-1]
        distance = np.linalg.norm(candidates[:, None] - others[None], axis=-1)
        free = candidates[(distance > clearance).all(axis=1)]
        if len(free):
            last = free[0]
            points = np.vstack([points, last])
        elif last is None:
            clearance *= 0.97  # full: pack a little tighter rather than loop for ever
        else:
            last = None
    return points


def _grow_atoms(rng, residues: np.ndarray) -> np.ndarray:
    """Atoms of each residue: a branching walk of bonds from its first atom."""
    atoms = np.repeat(residues[:, None], ATOMS_PER_RESIDUE, axis=1)
    everyone = np.arange(len(residues))
    for i in range(1, ATOMS_PER_RESIDUE):
        step = rng.normal(size=(16, len(residues), 3))
        step *= BOND_ANGSTROM / np.linalg.norm(step, axis=-1, keepdims=True)
        parent = atoms[everyone, rng.integers(0, i, size=len(residues))]
        candidates = parent + step  # (candidate, residue, 3)
        gap = np.linalg.norm(candidates[:, :, None] - atoms[None, :, :i], axis=-1).min(axis=2)
        atoms[:, i] = candidates[gap.argmax(axis=0), everyone]
    return atoms.reshape(-1, 3)
