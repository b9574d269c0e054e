"""How well particles' data agree with the opposite half-map along their motion and along the input motion, taken while frames pass by."""
import numpy as np
import torch

from refmotion_plugin.contract.verdict import JudgedMovie

from ..maths.blocks import stacked
from ..maths.fourier import frame_turns, spread_from_shells
from ..motion.held_out import input_motion, without_own_data

MOST_PARTICLES = 30     # of a movie, evenly spread over its list: enough for a verdict, and it costs a few hundredths of the alignment


class Judge:
    """Log-likelihood of the opposite half-map along both motions; called for each block of frames by ``dose.fcc.fcc_sums``.

    ``view`` MovieView; ``fit`` of its alignment, ``model`` its SignalModel without blur; ``amplitudes`` S(k) of each reference and
    the movie's ``unit``, as the alignment was given them.
    """

    def __init__(self, view, fit, model, amplitudes, unit):
        self.view, self.model, self.grid = view, model, view.grid
        device, n = view.own.device, len(view.particles)
        self.rows = np.unique(np.linspace(0, n - 1, min(n, MOST_PARTICLES)).round().astype(int))
        where = torch.from_numpy(self.rows).to(device)
        held_out, unknown = without_own_data(fit)
        motions, self.unknown = torch.stack([part[0, where] for part in (held_out, input_motion(fit))], dim=1), unknown[0, where]
        residual = view.residual_yx_angstrom[where, None]
        self.offset_px = (residual + motions) / view.grid.pixel_angstrom                    # (p, 2 motions, F, 2)
        self.turns = frame_turns(-self.offset_px.flatten(0, 1), view.grid)
        reference = view.particles.reference[self.rows]
        self.prediction = view.opposite[where].conj().resolve_conj()
        for i, amplitude in enumerate(amplitudes):
            members = torch.from_numpy(np.flatnonzero(reference == i)).to(device)
            if len(members):
                self.prediction[members] *= spread_from_shells((amplitude.on(view.grid, device) * unit).to(torch.float32), view.grid)
        self.where, self.total = where, torch.zeros(len(where), 2, dtype=torch.float64, device=device)

    def __call__(self, frames, spectra):
        """Add b frames; ``spectra[rows]`` complex64 (b, p, h, w) of particles, where the patches were cut.

        Columns are summed first: products with rows of the spectra as they lie in memory take half the time.
        """
        weighted = spectra[self.where]
        weighted *= self.prediction
        weighted *= self.model.frame_filters(frames)[:, None]
        y_turn, x_turn = (stacked(turn).unflatten(1, (-1, 2)) for turn in zip(*(self.turns(f) for f in frames)))
        columns = torch.bmm(y_turn.flatten(0, 1), weighted.flatten(0, 1)).unflatten(0, y_turn.shape[:2])              # (b, p, 2, w)
        self.total += (columns * x_turn).real.sum(-1).to(torch.float64).sum(0)

    def result(self):
        """:class:`JudgedMovie`."""
        held_out, start = self.total.T.cpu().numpy()
        particles = self.view.particles
        return JudgedMovie(particles.reference[self.rows], particles.row[self.rows], held_out, start, self.unknown.cpu().numpy())
