"""Trajectories and FCC sums of one movie: cut, whiten, correlate with the own half-map, fit, judge with the opposite one."""
import functools
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np
import torch

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.records import FccTable, Trajectories
from refmotion_plugin.contract.verdict import JudgedMovie

from ..dose.fcc import fcc_sums
from ..maths.fourier import FourierGrid, spread_from_shells, sum_over_shells, total_power
from ..motion.adapt import adapt_strength
from ..motion.correlate import Window, correlation_maps, renew_frames
from ..motion.escape import fit_out_of_false_peaks
from ..motion.model import SignalModel, motion_inside_frames, power_per_shell
from ..motion.prior import build_prior
from ..motion.whiten import mean_power, noise_power
from ..optics.predict import predict_both
from .judged import Judge
from .load import forget_stacks, load_stack, make_room, movie_memory
from .memory import within_memory
from .patches import PatchSpectra, cut_at, initial_displacement, plan_frames
from .prepared import Prepared

NOISE_FRAMES = 6             # frames, evenly spread, whose patches give the noise spectrum
BLUR_TURN = 0.25             # frames are computed anew when their blur differs by that of so many cycles at the end of the band
FIRST_TOLERANCE = 1e-5       # of fits that show the movie's strength, blur and where the next one begins: a hundredth of an A
UNIT_BAND = (1 / 30.0, 1 / 10.0)   # 1/A: noise level there stands for the movie's scale


@dataclass(frozen=True)
class AlignedMovie:
    """What one movie gives to the job."""

    trajectories: Trajectories
    fcc: FccTable
    notes: dict
    judged: Optional[JudgedMovie] = None


@dataclass(frozen=True)
class MovieView:
    """One movie as the alignment sees it: spectra of its patches, both predictions, doses and starting motion."""

    movie: object
    particles: object
    grid: FourierGrid
    spectra: PatchSpectra
    residual_yx_angstrom: torch.Tensor
    initial_yx_angstrom: np.ndarray
    own: torch.Tensor
    opposite: torch.Tensor
    dose_e_per_A2: np.ndarray
    dose_per_frame_e_per_A2: float
    damage: torch.Tensor

    @functools.cached_property
    def noise_frames(self):
        """Indices of the frames whose patches give the noise spectrum."""
        frames = len(self.dose_e_per_A2)
        return sorted(set(np.linspace(0, frames - 1, min(frames, NOISE_FRAMES)).round().astype(int).tolist()))

    @functools.cached_property
    def power(self):
        """Mean power of those frames' patches per component and shell, float64 (n_shells,): asked for more than once."""
        return torch.stack([mean_power(self.spectra(f)[:], self.grid) for f in self.noise_frames]).mean(0)


def view_movie(movie, particles, prepared: Prepared, stack=None):
    """Cut the patches of a movie and predict them. MovieError if there are no particles or the movie is unusable."""
    if not len(particles):
        raise MovieError("%s has no particles inside it: check the coordinates' pixel size" % movie.micrograph)
    memory, view = movie_memory(movie, len(particles), prepared), _view_of(movie, particles, prepared)
    stack = load_stack(movie, prepared, keep=True, n_particles=len(particles)) if stack is None else stack
    stack.keep_on(prepared.device, memory.frames_on_device_bytes)
    if view is not None:
        view.spectra.stack = stack
        return view
    plan = plan_frames(movie, prepared.spec.inputs)
    grid = prepared.alignment_grid(movie.original_pixel_angstrom)
    position = particles.position_yx_angstrom
    initial = initial_displacement(movie, position, plan)
    cut = cut_at(position[:, None] + initial, grid, prepared.device)
    spectra = PatchSpectra(stack, cut, grid, prepared.device, memory.cache_bytes, memory.particles_cut, memory.frames_together)
    own, opposite = predictions(particles, prepared, grid)
    dose = plan.dose_e_per_A2
    k = grid.shell_frequency_per_angstrom(dtype=torch.float64).numpy()
    damage = torch.from_numpy(exposure_amplitude(dose, k, movie.voltage_kilovolt)).to(prepared.device)
    return MovieView(movie, particles, grid, spectra, cut.residual_yx_angstrom, initial, own, opposite, dose, plan.dose_per_frame_e_per_A2, damage)


_kept = []      # one view at most, and what it was made with: (view, spec, references)


def keep_view(view: MovieView, prepared: Prepared):
    """Keep a view, spectra and all, until a view is asked for again: if it is of the same movie, this one is taken; else it is freed first."""
    _kept[:] = [(view, prepared.spec, prepared.references)]


def _view_of(movie, particles, prepared):
    """The view that was kept if it is of this movie, else None; it is kept no more."""
    kept = _kept[:]
    _kept.clear()           # at once: a thread that writes files may ask to forget movies
    return next((view for view, spec, references in kept if view.movie is movie and view.particles is particles
                 and spec is prepared.spec and references is prepared.references), None)


def forget_movies():
    """Free what is kept of movies: decoded frames, those on the disk too, and a view."""
    _kept.clear()
    forget_stacks()


def free_memory():
    """Free the memory that is kept of movies: a view and decoded frames but for those on the disk."""
    _kept.clear()
    make_room(0)


def predictions(particles, prepared: Prepared, grid: FourierGrid):
    """Own- and opposite-half predictions, complex64 (P, h, w) each, in the particles' order."""
    def of(index, table):
        reference = prepared.references[index]
        return [p.to(prepared.device) for p in predict_both(reference, table, prepared.optics[index], grid, reference.spectrum.device)]

    present = np.unique(particles.reference).tolist()
    if len(present) == 1:
        return of(present[0], particles)
    pair = torch.empty((2, len(particles)) + grid.shape, dtype=torch.complex64, device=prepared.device)
    for index in present:
        rows = np.flatnonzero(particles.reference == index)
        for part, some in zip(pair, of(index, particles[rows])):
            part[torch.from_numpy(rows).to(prepared.device)] = some
    return pair


def movie_unit(view: MovieView):
    """What signal amplitudes of a movie are proportional to: noise in a mid band times the root of the dose per frame.

    Scaling all counts by c scales it by c; more dose per frame scales signal by the dose and noise by its root; predictions are
    sums over pixels and grow as 1 / pixel^2. So amplitudes in this unit agree between movies of other gains, dose rates and pixels.
    The noise is that with the signal in it, which is known before amplitudes are: S(k) is measured and used in one unit.
    """
    noise = movie_noise(view)
    k = view.grid.shell_frequency_per_angstrom(noise.device, torch.float64)
    band = (k >= UNIT_BAND[0]) & (k <= UNIT_BAND[1])
    level = noise[band].mean() if bool(band.any()) else noise[1:].mean()
    dose = view.dose_per_frame_e_per_A2
    root = float((level * (dose if dose > 0 else 1.0)).clamp(min=1e-30).sqrt())
    return root * view.grid.pixel_angstrom ** 2 * view.grid.step_per_angstrom


def scaled_prediction(view: MovieView, amplitudes, unit):
    """Own-half predictions times each particle's reference amplitude S(k) in this movie's unit, and their mean power per shell."""
    scaled = view.own * unit
    for index, amplitude in enumerate(amplitudes):
        rows = torch.from_numpy(np.flatnonzero(view.particles.reference == index)).to(scaled.device)
        if len(rows):
            scaled[rows] *= spread_from_shells(amplitude.on(view.grid, scaled.device).to(torch.float32), view.grid)
    power = sum_over_shells(total_power(scaled), view.grid) / len(scaled)
    return scaled, power


def movie_noise(view: MovieView, signal_power=None):
    """Noise power per component and shell of the movie's patches, float64 (n_shells,). MovieError if they are flat or not finite."""
    total = view.power
    if not bool(torch.isfinite(total).all() and (total[1:] > 0).all()):
        raise MovieError("the frames of %s are flat or not finite where its particles are: check the movie and its gain"
                         % view.movie.micrograph)
    if signal_power is None:
        return noise_power(total)
    ones = sum_over_shells(torch.ones(view.grid.shape, device=total.device), view.grid)
    return noise_power(total, signal_power / ones * (view.damage[view.noise_frames] ** 2).mean(0))


def band_indicator(view: MovieView, prepared: Prepared, last_per_angstrom=None):
    """1 inside the alignment band, or up to another frequency, 0 outside and at DC; float64 (n_shells,)."""
    k = view.grid.shell_frequency_per_angstrom(prepared.device, torch.float64)
    last = prepared.band_per_angstrom(view.grid.pixel_angstrom) if last_per_angstrom is None else last_per_angstrom
    return ((k > 0) & (k <= last)).to(torch.float64)


def estimate_deviation(view: MovieView, amplitudes, prepared: Prepared, passes=None, band_per_angstrom=None):
    """Deviation from the input motion: correlate and fit, then again with the movie's own strength and the blur that shows.

    At first the blur is that of the input motion, one for all particles; frames are correlated anew where it is another.

    ``passes``: none takes the job's; ``band_per_angstrom`` where the components end, none: where the band ends. Returns the :class:`Fit` and the :class:`SignalModel` without blur.
    """
    passes = prepared.spec.alignment.passes if passes is None else passes
    template, power = scaled_prediction(view, amplitudes, movie_unit(view))
    band = band_per_angstrom or prepared.band_per_angstrom(view.grid.pixel_angstrom)
    model = SignalModel(view.grid, template, band_indicator(view, prepared, band), view.damage, movie_noise(view, power),
                        power=power_per_shell(template, view.grid))
    position = torch.from_numpy(view.particles.position_yx_angstrom).to(prepared.device)
    dose = torch.from_numpy(view.dose_e_per_A2).to(prepared.device)
    initial = torch.from_numpy(view.initial_yx_angstrom).to(prepared.device)
    of_input = motion_inside_frames(initial).mean(0)
    window = Window.covering(prepared.spec.alignment.search_radius_angstrom, band)
    maps = correlation_maps(view.spectra, replace(model, shared_blur_yx_angstrom=of_input), window, view.residual_yx_angstrom)
    where = position, dose, initial.mean(0)
    prior = build_prior([prepared.hyperparameters], *where)
    if passes == 1:
        return fit_out_of_false_peaks(maps, prior), model
    fit = fit_out_of_false_peaks(maps, prior, FIRST_TOLERANCE)
    own = adapt_strength(prepared.hyperparameters, fit, maps, *where)
    prior, used = build_prior([own], *where), of_input.expand_as(initial).clone()
    for _ in range(passes - 1):
        shown = motion_inside_frames(initial + fit.deviation[0])
        frames = torch.nonzero(blur_change(shown, used) * band > BLUR_TURN).flatten().tolist()
        maps = renew_frames(maps, view.spectra, replace(model, blur_yx_angstrom=shown), window, frames)
        used[:, frames] = shown[:, frames]
        fit = fit_out_of_false_peaks(maps, prior, after=fit)
    return replace(fit, strength=own.velocity_sigma / prepared.hyperparameters.velocity_sigma), model


def blur_change(new, used):
    """How much the blur by motion inside frames differs between two motions (P, F, 2), as one length per frame (F,), A.

    sinc(k . d) is 1 - (pi k . d)^2 / 6 at first, so it differs by (k . (new - used)) (k . (new + used)) times a constant: the mean over
    particles of the product of both lengths, without ``used`` that of the motion itself.
    """
    return ((new - used).norm(dim=-1) * (new + used).norm(dim=-1)).mean(0).sqrt()


@within_memory
def align_movie(movie, particles, prepared: Prepared, stack=None):
    """Align one movie with calibrated references. Returns :class:`AlignedMovie`; MovieError if the movie is unusable."""
    view = view_movie(movie, particles, prepared, stack)
    shape = view.initial_yx_angstrom.shape
    comparison = None
    if prepared.spec.motion_prior.rigid:
        deviation, sd, notes = np.zeros(shape), (np.zeros(shape[:2]),) * 2, {"stop_reason": "input motion kept"}
        noise = movie_noise(view)
    else:
        fit, model = estimate_deviation(view, prepared.amplitudes, prepared, None, prepared.aligned_per_angstrom(view.grid.pixel_angstrom))
        deviation, sd = fit.deviation[0].cpu().numpy(), [part[0].cpu().numpy() for part in (fit.sd, fit.motion_sd)]
        notes = {"stop_reason": fit.reason[0], "iterations": int(fit.iterations[0]), "strength": fit.strength}
        noise = model.noise
        comparison = Judge(view, fit, model, prepared.amplitudes, movie_unit(view))
    if not np.isfinite(deviation).all():
        raise MovieError("the fit of %s gave values that are not finite: check its frames and gain" % movie.micrograph)
    fcc = judge(view, deviation, noise, optics_index(particles, prepared), len(prepared.optics_groups), comparison)
    trajectories = Trajectories(
        micrograph=movie.micrograph, reference=particles.reference, row=particles.row,
        position_yx_angstrom=particles.position_yx_angstrom,
        displacement_yx_angstrom=(view.initial_yx_angstrom + deviation).astype(np.float32),
        deviation_sd_angstrom=sd[0].astype(np.float32), motion_sd_angstrom=sd[1].astype(np.float32), initial_yx_angstrom=view.initial_yx_angstrom.astype(np.float32),
        dose_e_per_A2=view.dose_e_per_A2, stop_reason=notes["stop_reason"])
    return AlignedMovie(trajectories, fcc, notes, comparison and comparison.result())


def optics_index(particles, prepared: Prepared):
    """Position of each particle's optics group on the group axis, int64 (P,)."""
    return torch.from_numpy(prepared.optics_index(particles))


def judge(view: MovieView, deviation, noise, group, n_groups, watch=None):
    """FCC sums with the opposite half-map along given deviations: movie in units of its noise, reference in the movie's unit.

    ``watch``: see :func:`..dose.fcc.fcc_sums`.
    """
    offset = view.residual_yx_angstrom + torch.as_tensor(deviation, dtype=torch.float64, device=view.own.device)
    table = fcc_sums(view.spectra, view.opposite, offset / view.grid.pixel_angstrom, group, n_groups,
                     view.grid, view.dose_e_per_A2, watch)
    weight, unit = 1.0 / noise.clamp(min=1e-30).cpu().numpy(), movie_unit(view)     # noise is one number per shell
    return replace(table, cross=table.cross * weight * unit, power_movie=table.power_movie * weight,
                   power_reference=table.power_reference * weight * unit ** 2)
