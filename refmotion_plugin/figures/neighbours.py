"""Who moves unlike the particles around: the check that a field of trajectories is smooth."""
import numpy as np

NEIGHBOURS = 6
FAR = 5.0             # robust standard deviations
LEAST_PARTICLES = 8
LEAST_ANGSTROM = 1.0


def departures(position_yx_angstrom, track_angstrom):
    """Rms distance (n,) in A of each track (n, frame, 2) from the median of its nearest neighbours', constant offsets left out."""
    n = len(track_angstrom)
    track = track_angstrom - track_angstrom.mean(axis=1, keepdims=True)
    departure = np.zeros(n)
    for particle in range(n):
        distance = ((position_yx_angstrom - position_yx_angstrom[particle]) ** 2).sum(axis=1)
        distance[particle] = np.inf
        nearest = np.argpartition(distance, min(NEIGHBOURS, n - 1) - 1)[:NEIGHBOURS] if n > 1 else [particle]
        difference = track[particle] - np.median(track[nearest], axis=0)
        departure[particle] = np.sqrt((difference ** 2).sum(axis=1).mean())
    return departure


def outliers(position_yx_angstrom, track_angstrom):
    """Indices of the particles that move unlike their neighbours; none among fewer than eight."""
    if len(track_angstrom) < LEAST_PARTICLES:
        return np.zeros(0, int)
    departure = departures(position_yx_angstrom, track_angstrom)
    median = np.median(departure)
    spread = 1.4826 * np.median(np.abs(departure - median))
    return np.flatnonzero((departure > median + FAR * spread) & (departure > LEAST_ANGSTROM))
