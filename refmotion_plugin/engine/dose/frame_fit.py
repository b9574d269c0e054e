"""How the amplitudes of frames depend on each other: a penalised least-squares fit, with S(k) eliminated in closed form.

Source of the elimination and its derivatives: Golub & Pereyra 1973, variable projection.
"""
from dataclasses import dataclass

import numpy as np

EARLY_DOSE = 6.0            # e/A^2 during which motion makes frames differ from the exposure curve
SD_B_EARLY, SD_B_LATE = 60.0, 6.0        # A^2, prior of B_f at the first frame and late
SD_LOG_C_EARLY, SD_LOG_C_LATE = 0.5, 0.05
SD_DAMAGE, SD_B_RATE = 0.2, 0.5   # of a around 1; of b, A^2 per e/A^2
SD_LOG_KIND = 0.3           # of the overall scale between kinds of movies
USUAL_FRAME_DOSE = 1.2      # e/A^2 between frames for which the smoothness is stated


@dataclass(frozen=True)
class FrameFit:
    """C and B (with b N) per frame with standard errors, each (frame,), S (shell,) and the power a of the exposure curve."""

    scale: np.ndarray
    b_factor_A2: np.ndarray
    scale_error: np.ndarray
    b_error_A2: np.ndarray
    amplitude: np.ndarray
    damage: float = 1.0


def fit_frames(t, error, exposure, dose_e_per_A2, frequency_per_angstrom, kind=None):
    """C_f, B_f, a and b of the model in weights.py.

    ``t``, ``error``, ``exposure`` (frame, shell) within the fitted band; frames in order of dose. ``kind`` (frame,) int: frames of
    movies of different kinds share the curve but each kind after the first has its own overall scale. Returns a
    :class:`FrameFit`.
    """
    n = len(dose_e_per_A2)
    problem = Problem(t, error, exposure, dose_e_per_A2, frequency_per_angstrom, np.zeros(n, dtype=int) if kind is None else np.asarray(kind))
    scale = np.concatenate([np.full(n, 0.1), np.full(n, 5.0), np.full(problem.size - 2 * n - 2, 0.1), [0.1, 0.3]])
    from scipy.optimize import least_squares         # here: it slows every start, and workers do not need it
    found = least_squares(problem.residuals, np.zeros(problem.size), problem.slopes, x_scale=scale, method="trf", max_nfev=60)
    covariance = np.linalg.pinv(found.jac.T @ found.jac)
    variance, both = np.diag(covariance), covariance[n:2 * n, -1]
    later = problem.later
    b_variance = variance[n:2 * n] + 2 * later * both + later ** 2 * variance[-1]
    c, b_factor = np.exp(found.x[:n]), found.x[n:2 * n] + found.x[-1] * later
    c_error, b_error = c * np.sqrt(np.maximum(variance[:n], 0.0)), np.sqrt(np.maximum(b_variance, 0.0))
    return FrameFit(c, b_factor, c_error, b_error, problem.profile(problem.shapes(found.x)), float(max(1.0 + found.x[-2], 0.0)))


class Problem:
    """Residuals of the fit and their derivatives. Parameters x: log C and B - b N of each frame, log scales of the kinds after the first, a - 1, b.

    The arguments are those of :func:`fit_frames`.
    """

    def __init__(self, t, error, exposure, dose_e_per_A2, frequency_per_angstrom, kind):
        self.t, self.kind, self.n, n_scales = t, kind, len(dose_e_per_A2), int(kind.max())
        self.size = 2 * self.n + n_scales + 2
        self.inverse = np.where(np.isfinite(error), 1.0 / np.maximum(error, 1e-30), 0.0)
        self.decay = frequency_per_angstrom ** 2 / 4.0
        self.later = dose_e_per_A2 - dose_e_per_A2[0]
        self.log_exposure = np.log(np.maximum(exposure, 1e-30))
        self.prior = self._prior(dose_e_per_A2)

    def _prior(self, dose):
        """What the prior adds to the residuals is this matrix (row, parameter) times x."""
        n, n_scales = self.n, self.size - 2 * self.n - 2
        early = np.exp(-self.later / EARLY_DOSE)
        sd_b = SD_B_LATE + (SD_B_EARLY - SD_B_LATE) * early
        sd_c = SD_LOG_C_LATE + (SD_LOG_C_EARLY - SD_LOG_C_LATE) * early
        jump = np.sqrt(early[1:]) if n > 1 else np.zeros(0)
        stride = np.sqrt(np.maximum(np.diff(dose), 1e-3) / USUAL_FRAME_DOSE)
        difference, nothing = np.diff(np.eye(n), axis=0), np.zeros((n - 1, self.size))
        smooth_b, smooth_c = nothing.copy(), nothing
        smooth_b[:, n:2 * n] = difference / ((1.0 + SD_B_EARLY * jump) * stride)[:, None]
        smooth_c[:, :n] = difference / ((0.02 + SD_LOG_C_EARLY * jump) * stride)[:, None]
        own = np.diag(1.0 / np.concatenate([sd_c, sd_b, np.full(n_scales, SD_LOG_KIND), [SD_DAMAGE, SD_B_RATE]]))
        return np.concatenate([own, smooth_b, smooth_c])

    def shapes(self, x):
        """The model without S, (frame, shell)."""
        n = self.n
        own = np.concatenate([[0.0], x[2 * n:-2]])[self.kind]
        power, b_factor = max(1.0 + x[-2], 0.0), x[n:2 * n] + x[-1] * self.later
        return np.exp(power * self.log_exposure + (x[:n] + own)[:, None] - b_factor[:, None] * self.decay)

    def profile(self, shape):
        """The best S (shell,) for these shapes."""
        total = ((self.inverse * shape) ** 2).sum(0)
        return np.divide((self.inverse ** 2 * shape * self.t).sum(0), total, out=np.zeros_like(total), where=total > 0)

    def residuals(self, x):
        """Of the data, in units of their errors, and of the prior."""
        shape = self.shapes(x)
        return np.concatenate([(self.inverse * (self.t - self.profile(shape) * shape)).ravel(), self.prior @ x])

    def slopes(self, x):
        """Derivatives of the residuals (residual, parameter).

        A change u of the shapes' logarithm (frame, shell) changes S by sum_f ``pull`` u, and the data's residuals by -``seen`` (that + S u).
        """
        shape = self.shapes(x)
        seen, s = self.inverse * shape, self.profile(shape)
        total = (seen ** 2).sum(0)
        pull = np.divide(seen * (self.inverse * self.t - 2.0 * s * seen), total, out=np.zeros_like(seen), where=total > 0)
        every, n = np.arange(self.n), self.n
        out = np.empty(shape.shape + (self.size,))
        out[:, :, :n] = -seen[:, :, None] * pull.T                              # of log C, which changes one frame alone
        out[every, :, every] -= seen * s
        out[:, :, n:2 * n] = -self.decay[:, None] * out[:, :, :n]
        shared = [(self.kind == i)[:, None] * np.ones_like(self.decay) for i in range(1, self.size - 2 * n - 1)]
        shared += [self.log_exposure * (1.0 + x[-2] > 0.0), -self.later[:, None] * self.decay]
        for place, u in enumerate(shared, 2 * n):
            out[:, :, place] = -seen * ((pull * u).sum(0) + s * u)
        return np.concatenate([out.reshape(-1, self.size), self.prior])
