"""What dose weights are worth on data they were not fitted to: signal-to-noise ratio won over other weights."""
from dataclasses import dataclass

import numpy as np

from refmotion_plugin.contract.records import FccTable


@dataclass(frozen=True)
class WeightScore:
    """Sums over shells of the signal-to-noise ratio (amplitude) under two weightings, and the variance of their difference.

    Scores of independent data add.
    """

    mine: float = 0.0
    other: float = 0.0
    variance: float = 0.0

    def __add__(self, more):
        return WeightScore(self.mine + more.mine, self.other + more.other, self.variance + more.variance)

    @property
    def gain(self):
        """Share won over the other weights, and its standard error; (nan, inf) if the other shows no signal."""
        if self.other <= 0:
            return float("nan"), float("inf")
        return self.mine / self.other - 1.0, self.variance ** 0.5 / self.other


def score_weights(table: FccTable, group, mine, other, band):
    """:class:`WeightScore` of one optics group.

    Parameters: ``mine`` and ``other`` (frame, shell) weights on the table's axes, in any normalisation; ``band`` mask of shells.

    Per shell the sum over frames of w cross has the noise variance sum w^2 power_movie / (2 components) power_reference; in units of
    that it is the signal-to-noise ratio that an average with the weights w has.
    """
    components, reference = table.components[group][:, band], table.power_reference[group][:, band]
    seen = (components > 0).all(0) & (reference > 0).all(0)
    if not seen.any():
        return WeightScore()
    noise = (table.power_movie[group][:, band] / np.maximum(2.0 * components, 1.0))[:, seen]
    scaled = [w[:, band][:, seen] / np.sqrt((w[:, band][:, seen] ** 2 * noise).sum(0)) for w in (mine, other)]
    cross = (table.cross[group][:, band] / np.sqrt(np.maximum(reference, 1e-300)))[:, seen]
    ratio = [(w * cross).sum(0) for w in scaled]
    agreement = (scaled[0] * scaled[1] * noise).sum(0)
    return WeightScore(float(ratio[0].sum()), float(ratio[1].sum()), float(np.maximum(2.0 - 2.0 * agreement, 0.0).sum()))
