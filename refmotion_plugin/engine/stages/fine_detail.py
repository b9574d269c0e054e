"""Do the movies show the detail on which the half-maps agree? Another structure, hand or pose still fits coarsely, but not finely.

Amplitudes are taken along the input motion: along motion that was found, noise is in step with the reference whatever it shows.
"""
import numpy as np
import torch

COARSE = (1 / 80.0, 1 / 25.0)     # 1/A: seen whatever is wrong with the fine detail
FINE_FROM = 0.6             # of the frequency where the FSC falls below one half
EXPECTED = 5.0              # standard errors that fine detail should have before its absence means something
ABSENT = 0.6                # of the expected amplitude: fine detail that is not there ...
SEEN = 4.0                  # ... unless it is seen by so many standard errors: sharpened half-maps have too much of it
CERTAIN = 2.0
ODD = ("the half-maps agree well to %.1f Å, but the movies show %.0f ± %.0f %% of the detail expected there from 80 to 25 Å: another structure or "
       "hand, or poses of other particles; give the maps and poses of one refinement of these movies")


def fine_detail(sums, index, reference):
    """(amplitude of fine detail relative to coarse detail, standard error, frequency to which the half-maps agree well), or None.

    Parameters: ``sums`` with ``frequency`` (shell,), ``cross`` and ``power`` (reference, shell): sum of D Re[Y A*] and of D^2 |A|^2 in
    units of the noise; ``index`` of the ``reference``. About 1 where all is well, and none if there is nothing to compare.
    """
    k = sums["frequency"]
    fsc = reference.fsc_at(torch.from_numpy(k)).cpu().numpy()
    beyond = np.flatnonzero((k > COARSE[1]) & (fsc < 0.5))
    end = k[beyond[0]] if len(beyond) else k[-1]
    fine, coarse = (k >= FINE_FROM * end) & (k <= end) & (k > COARSE[1]), (k >= COARSE[0]) & (k <= COARSE[1])
    cross, power = sums["cross"][index] * fsc, sums["power"][index] * fsc ** 2
    if not (power[fine].sum() > 0 and power[coarse].sum() > 0 and cross[coarse].sum() > 0):
        return None
    amplitude = cross[coarse].sum() / power[coarse].sum()
    return (float(cross[fine].sum() / power[fine].sum() / amplitude), float(power[fine].sum() ** -0.5 / amplitude), float(end))


def doubts(found):
    """What is odd about a :func:`fine_detail`, sentences."""
    if found is None:
        return ()
    ratio, error, frequency = found
    absent = error < 1.0 / EXPECTED and ratio + CERTAIN * error < ABSENT and ratio < SEEN * error
    return (ODD % (1.0 / frequency, 100 * ratio, 100 * error),) if absent else ()
