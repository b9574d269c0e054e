"""What a job says of itself at its end: did trajectories and dose weights bring anything, how much, and how sure is that?"""
from dataclasses import asdict, dataclass, fields
from typing import Optional, Tuple

import numpy as np

from .errors import InputError
from .layout import read_json, write_json
from .spec import SCHEMA

GAIN, NO_GAIN, CANNOT_TELL, WRONG = "gain", "no gain", "cannot tell", "inputs look wrong"
WORDS = (GAIN, NO_GAIN, CANNOT_TELL, WRONG)
NOT_JUDGED = "not judged"


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
class Verdict:
    """The verdict of a job.

    ``word``: one of ``WORDS``; ``text``: the verdict in a sentence. ``trajectories``: against the input motion, judged on data that
    had no part in them; ``weights``: the dose weights against the standard exposure curve, judged on movies they were not fitted
    to; ``even_weights``: the same against equal weights. ``b_factor_A2``: what the trajectories take off the B-factor (positive
    is better), with its error. ``resolution_angstrom``: where the half-map FSC falls below 0.143, expected for the same particles
    as the reference's. ``reconstruction_angstrom``: the same measured by a reconstruction of both, if one was made.
    ``warnings``: what looks wrong with the inputs (they are in ``text`` too). None where something could not be found.
    """

    word: str
    text: str
    trajectories: Finding
    weights: Finding
    even_weights: Finding
    b_factor_A2: Optional[float]
    b_factor_error_A2: Optional[float]
    resolution_angstrom: Optional[Change]
    reconstruction_angstrom: Optional[Change]
    warnings: Tuple[str, ...]
    particles: int
    movies: int

    @property
    def sentences(self):
        """The verdict in sentences for a page or a summary, the most important first."""
        return [self.text] + [f.text for f in (self.trajectories, self.weights) if f.text]


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
        for name in ("resolution_angstrom", "reconstruction_angstrom"):
            data[name] = None if data[name] is None else Change(**data[name])
    except TypeError:
        raise InputError("%s does not hold a verdict of schema %d: run the job again with this version" % (path, SCHEMA)) from None
    return Verdict(**dict(data, warnings=tuple(data["warnings"])))
