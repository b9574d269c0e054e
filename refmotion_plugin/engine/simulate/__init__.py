"""A complete cryo-EM movie data set with known truth, drawn with its own arithmetic.

Nothing here is shared with the engine: the simulator is the second witness of
every convention (axes, signs, units, row order), so it must not import the
code it is meant to check. NumPy and SciPy only.
"""
from .dataset import SimulatedPaths, simulate
from .score import (TrajectoryError, particle_ring_correlation, trajectory_error,
                    true_projections, weight_agreement)
from .spec import SimulationSpec

__all__ = ["SimulatedPaths", "SimulationSpec", "TrajectoryError", "particle_ring_correlation",
           "simulate", "trajectory_error", "true_projections", "weight_agreement"]
