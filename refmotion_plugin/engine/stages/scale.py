"""Is the voxel size of the reference right? Its predictions, made a few per cent larger or smaller, must not fit the movies better."""
from dataclasses import dataclass, replace

import numpy as np

WIDEST, COARSEST_STEP = 0.2, 0.03
STEP_ANGSTROM = 2.0         # by which a step moves the particle's edge: a fraction of the finest wave looked at
SEEN, ENOUGH = 10.0, 40.0   # z below which nothing is said, and from which no further movie is looked at
CERTAIN = 5.0               # standard errors ...
NOTICED = 0.015             # ... and a size from which a voxel size is called wrong: refinements calibrate no better, and it blurs the edge
OFF = ("the reference fits the movies best if it is %.1f ± %.1f %% %s: its voxel size is given as %.4f Å and looks like %.4f Å, or the pixel size of the "
       "movies is wrong; correct the header of the half-maps and mask, or give the maps of a refinement of these movies")


def tried_scales(particle_radius_angstrom):
    """Factors of the voxel size, 1 in their middle: steps as fine as the particle's size asks for."""
    step = min(COARSEST_STEP, STEP_ANGSTROM / particle_radius_angstrom)
    count = int(np.ceil(WIDEST / step))
    return 1.0 + step * np.arange(-count, count + 1)


@dataclass(frozen=True)
class ScaleScan:
    """Agreement of movies with one reference at each ``scale`` of its voxel size: ``cross`` (scale,) and its variance under noise ``power``."""

    reference: int
    pixel_angstrom: float
    scale: np.ndarray
    cross: np.ndarray
    power: np.ndarray

    def __add__(self, more):
        return replace(self, cross=self.cross + more.cross, power=self.power + more.power)

    @property
    def z(self):
        """Agreement in standard deviations of noise, (scale,)."""
        return self.cross / np.sqrt(np.maximum(self.power, 1e-30))

    @property
    def enough(self):
        """Whether more movies would make it no better than it needs to be."""
        return bool(self.z.max() >= ENOUGH)

    @property
    def best(self):
        """(scale of the best fit, its standard error), or None if it is not seen or lies at the end of what was tried.

        The top of a parabola through the best and its neighbours, whose noise is nearly the same: only the slope between them counts.
        """
        z, at = self.z, int(self.z.argmax())
        if z[at] < SEEN or at in (0, len(z) - 1):
            return None
        before, top, after = z[at - 1:at + 2]
        bend = 2.0 * top - before - after
        step = self.scale[1] - self.scale[0]
        if bend <= 0.0:
            return None
        return float(self.scale[at] + 0.5 * step * (after - before) / bend), float(step / np.sqrt(bend * top))

    @property
    def text(self):
        """One line for logs."""
        found = self.best
        if found is None:
            return "voxel size of reference %d: the fit does not tell" % (self.reference + 1)
        return "voxel size of reference %d: the best fit is %.2f ± %.2f %% from the one given" % (self.reference + 1, 100 * (found[0] - 1), 100 * found[1])

    @property
    def warnings(self):
        """A sentence if the voxel size looks wrong."""
        found = self.best
        if found is None or abs(found[0] - 1.0) < max(NOTICED, CERTAIN * found[1]):
            return ()
        off = found[0] - 1.0
        return (OFF % (100 * abs(off), 100 * found[1], "larger" if off > 0 else "smaller", self.pixel_angstrom, self.pixel_angstrom * found[0]),)
