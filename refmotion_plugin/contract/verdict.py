"""What a job says of itself at its end: did trajectories and dose weights bring anything, how much, and how sure is that?"""
from dataclasses import asdict, dataclass, fields, replace
from typing import Optional, Tuple

import numpy as np

from .errors import InputError
from .layout import read_json, write_json
from .spec import SCHEMA

GAIN, NO_GAIN, CANNOT_TELL, WRONG = "gain", "no gain", "cannot tell", "inputs look wrong"
WORDS = (GAIN, NO_GAIN, CANNOT_TELL, WRONG)
NOT_JUDGED = "not judged"
INPUT_MOTION, GIVEN_IMAGES = "input motion and standard exposure curve", "the images given"


def rounded(value, digits=0):
    """A number for a sentence, rounded to so many decimals: never -0."""
    return round(value, digits) + 0.0


def b_factor_words(lower_by_A2, error_A2):
    """What became of the B-factor, with its standard error, both A^2: lower or higher, the number itself without a sign."""
    return "B-factor %s by %.1f ± %.1f Å²" % ("lower" if round(lower_by_A2, 1) >= 0 else "higher", abs(lower_by_A2), error_A2)


@dataclass(frozen=True)
class JudgedMovie:
    """Log-likelihood of particles' data under the opposite half-map along two motions, above no signal at all.

    ``held_out``: motion found without the particle's own data, which would flatter; ``start``: the input motion. ``unknown_A2``: mean
    square per axis of what that motion leaves unknown, A^2.
    """

    reference: np.ndarray     # (n,) index of the particle set
    row: np.ndarray           # (n,) row in that set
    held_out: np.ndarray      # (n,) float64
    start: np.ndarray         # (n,) float64
    unknown_A2: np.ndarray    # (n,) float64


@dataclass(frozen=True)
class Finding:
    """One comparison. ``gain``: share of signal-to-noise ratio (amplitude) won, 0.05 = 5 %, with its standard error.

    ``word`` is one of ``WORDS``, or ``not judged``: then ``gain`` and ``error`` are None and ``text`` says why.
    """

    word: str
    gain: Optional[float]
    error: Optional[float]
    text: str


@dataclass(frozen=True)
class Change:
    """A number before and after, with the standard error of the change."""

    before: float
    after: float
    error: float


@dataclass(frozen=True)
class Reconstruction:
    """Half-map FSC, within the mask, of one reference's particles before and after, in the same poses and half-sets.

    ``before`` says what that is: ``INPUT_MOTION`` (the same movies summed along the input motion with the standard exposure curve),
    ``GIVEN_IMAGES`` (the images that the particle STAR file names), or "" if there was nothing to compare with. ``frequency_per_angstrom``,
    ``fsc_before``, ``fsc_after`` (shell,); resolutions are None where the curve does not fall below 0.143, ``error_angstrom`` is the standard
    error of their difference. ``snr_gain``: what the signal-to-noise ratio (power) rose by where the FSC lies between 0.95 and 0.143, 0.1 = 10 %, with its error. ``fault``: why there is no reconstruction, else "".
    """

    reference: int
    particles: int
    symmetry: str
    before: str
    frequency_per_angstrom: Tuple[float, ...] = ()
    fsc_before: Tuple[float, ...] = ()
    fsc_after: Tuple[float, ...] = ()
    before_angstrom: Optional[float] = None
    after_angstrom: Optional[float] = None
    error_angstrom: Optional[float] = None
    snr_gain: Optional[float] = None
    snr_error: Optional[float] = None
    fault: str = ""

    @property
    def change(self):
        """:class:`Change` of the resolution, or None if either is not known."""
        numbers = (self.before_angstrom, self.after_angstrom, self.error_angstrom)
        return None if None in numbers else Change(*numbers)

    @property
    def sentence(self):
        """What was found, as a sentence."""
        of = "of reference %d " % (self.reference + 1) if self.reference else ""
        if self.fault:
            return "There is no reconstruction %sto compare: %s." % (of, self.fault.rstrip("."))
        made = "Reconstruction %sfrom %d particles (%s)" % (of, self.particles, self.symmetry)
        limit = "finer than %.2f Å, the finest that was looked at" % (1.0 / self.frequency_per_angstrom[-1])
        after = limit if self.after_angstrom is None else "%.2f Å" % self.after_angstrom
        if not self.before:
            return "%s: %s; the input has no images of the same particles and size to compare with." % (made, after)
        snr = "" if None in (self.snr_gain, self.snr_error) else "; signal-to-noise ratio %+.0f ± %.0f %%" % (100 * self.snr_gain, 100 * self.snr_error)
        if self.change is None:
            before = limit if self.before_angstrom is None else "%.2f Å" % self.before_angstrom
            return "%s: before (%s) %s, after %s%s." % (made, self.before, before, after, snr)
        won = self.before_angstrom - self.after_angstrom
        said = "%s: %.2f Å before (%s), %s after" % (made, self.before_angstrom, self.before, after)
        if abs(won) <= 2 * self.error_angstrom:
            return "%s; no change of resolution beyond its error (%+.2f ± %.2f Å)%s." % (said, -won, self.error_angstrom, snr)
        return "%s: %s by %.2f ± %.2f Å%s." % (said, "better" if won > 0 else "worse", abs(won), self.error_angstrom, snr)


@dataclass(frozen=True)
class Verdict:
    """The verdict of a job.

    ``word``: one of ``WORDS``; ``text``: the verdict in a sentence. ``trajectories``: against the input motion, judged on data that
    had no part in them; ``weights``: dose weights against the standard exposure curve, judged on movies they were not fitted
    to (given ones are not judged: what they were fitted to is not known); ``even_weights``: the same against equal weights. ``b_factor_A2``: what the trajectories take off the B-factor (positive
    is better), with its error. ``resolution_angstrom``: where the half-map FSC falls below 0.143, expected for the same particles
    as the reference's. ``reconstructions``: one per reference if they were asked for, before and after from the images themselves.
    ``warnings``: what looks wrong with the inputs (they are in ``text`` too). ``particles`` and ``movies``: that trajectories were judged
    on, 0 where the input motion was kept. None where something could not be found.
    """

    word: str
    text: str
    trajectories: Finding
    weights: Finding
    even_weights: Finding
    b_factor_A2: Optional[float]
    b_factor_error_A2: Optional[float]
    resolution_angstrom: Optional[Change]
    warnings: Tuple[str, ...]
    particles: int
    movies: int
    reconstructions: Tuple[Reconstruction, ...] = ()

    @property
    def sentences(self):
        """The verdict in sentences for a page or a summary, the most important first."""
        return [self.text] + [f.text for f in (self.trajectories, self.weights) if f.text] + [r.sentence for r in self.reconstructions]


def save_verdict(path, verdict):
    """Write a :class:`Verdict` as JSON."""
    write_json(path, dict(asdict(verdict), schema=SCHEMA))


def load_verdict(path):
    """:class:`Verdict` of a JSON file. Raises InputError if it is not whole or of another version."""
    data = read_json(path)
    names = {f.name for f in fields(Verdict)}
    if not isinstance(data, dict) or set(data) != names | {"schema"} or data.pop("schema") != SCHEMA:
        raise InputError("%s does not hold a verdict of schema %d: run the job again with this version" % (path, SCHEMA))
    try:
        for name in ("trajectories", "weights", "even_weights"):
            data[name] = Finding(**data[name])
        data["resolution_angstrom"] = None if data["resolution_angstrom"] is None else Change(**data["resolution_angstrom"])
        data["reconstructions"] = read_reconstructions(data["reconstructions"])
    except TypeError:
        raise InputError("%s does not hold a verdict of schema %d: run the job again with this version" % (path, SCHEMA)) from None
    return Verdict(**dict(data, warnings=tuple(data["warnings"])))


def read_reconstructions(rows):
    """Tuple of :class:`Reconstruction` from what JSON made of them. Raises TypeError if they are not such."""
    made = tuple(Reconstruction(**row) for row in rows)
    return tuple(replace(r, **{n: tuple(getattr(r, n)) for n in ("frequency_per_angstrom", "fsc_before", "fsc_after")}) for r in made)
