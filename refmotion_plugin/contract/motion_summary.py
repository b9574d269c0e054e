"""Trajectories in a few numbers: of one movie, and of all particles of a job."""
from collections import namedtuple

import numpy as np

EARLY_DOSE_E_PER_A2 = 4.0
STATISTICS_MOVIES = 300         # movies that are read for statistics over particles
PERCENTILES = (10.0, 50.0, 90.0)

MovieMotion = namedtuple("MovieMotion", "path_length_angstrom early_angstrom local_rms_angstrom sd_angstrom")
"""Of one movie: medians over its particles of the path's length, the displacement within the first 4 e/A^2, the rms departure from the
input motion and its rms posterior standard deviation, both axes together and without the constant offset as well, all in A."""

MotionStatistics = namedtuple("MotionStatistics", "dose_e_per_A2 speed_angstrom_per_frame path_length_angstrom early_angstrom "
                                                  "local_rms_angstrom n_particles speed_percentiles_angstrom departure_rms_angstrom")
"""Of all aligned particles: dose axis (frame,), rms speed (frame - 1,), path lengths (n,), early displacements (n,), rms departures from the
input motion (n,), speeds of the 10th, 50th and 90th percentile (3, frame - 1) and rms departure from the input motion of each
frame (frame,), all in A. Movies with another number of frames are not in the per-frame numbers."""


def spread(items, count):
    """Up to ``count`` of some items, evenly spread: enough to describe all, however many there are."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, count).round().astype(int))] if items else []


def movie_motion(trajectories, early_dose_e_per_A2=EARLY_DOSE_E_PER_A2):
    """:class:`MovieMotion` of one movie's Trajectories."""
    speed, early, departure = _motion(trajectories, early_dose_e_per_A2)
    sd = np.sqrt(2.0 * (np.asarray(trajectories.sd_of_motion_angstrom, dtype=np.float64) ** 2).mean(axis=1))
    local = np.sqrt((departure ** 2).sum(axis=2).mean(axis=1))
    return MovieMotion(*(float(np.median(values)) if len(values) else 0.0 for values in (speed.sum(axis=1), early, local, sd)))


def motion_statistics(tables, early_dose_e_per_A2=EARLY_DOSE_E_PER_A2):
    """:class:`MotionStatistics` of some movies' Trajectories (one at least)."""
    counts = [t.displacement_yx_angstrom.shape[1] for t in tables]
    n_frames = max(set(counts), key=counts.count)
    lengths, early, local, speeds, squares = [], [], [], [], []
    for table, count in zip(tables, counts):
        speed, first, departure = _motion(table, early_dose_e_per_A2)
        square = (departure ** 2).sum(axis=2)
        lengths.append(speed.sum(axis=1))
        early.append(first)
        local.append(np.sqrt(square.mean(axis=1)))
        if count == n_frames:
            speeds.append(speed)
            squares.append(square)
    dose = next(t.dose_e_per_A2 for t, count in zip(tables, counts) if count == n_frames)
    lengths, speeds = np.concatenate(lengths), np.concatenate(speeds)
    return MotionStatistics(dose, np.sqrt((speeds ** 2).mean(axis=0)), lengths, np.concatenate(early), np.concatenate(local), len(lengths),
                            np.percentile(speeds, PERCENTILES, axis=0), np.sqrt(np.concatenate(squares).mean(axis=0)))


def _motion(table, early_dose):
    """Speed (n, frame - 1), early displacement (n,) and departure from the input motion (n, frame, 2)."""
    track = np.asarray(table.displacement_yx_angstrom, dtype=np.float64)
    last_early = int(np.searchsorted(table.dose_e_per_A2 - table.dose_e_per_A2[0], early_dose, side="right")) - 1
    departure = track - table.initial_yx_angstrom
    return (np.linalg.norm(np.diff(track, axis=1), axis=2), np.linalg.norm(track[:, last_early] - track[:, 0], axis=1),
            departure - departure.mean(axis=1, keepdims=True))                     # a constant offset is no motion
