"""A look at a few movies before the long run: do predictions and movies agree as configured, or does another reading fit better?

RELION, IMOD and MotionCor turn TIFF movies upside down on reading and MRC movies not; other programs do not. Coordinates may be in
other pixels, origins may have the other sign, the contrast may be inverted. Each such reading is tried on rigidly aligned
averages; the correlation with the predictions tells. z is in standard deviations of what pure noise would give.

The voxel size of the reference is looked at too: predictions of a reference a few per cent larger or smaller must not fit better.
"""
import logging
from dataclasses import dataclass, field, replace
from typing import Dict

import numpy as np
import torch

from refmotion_plugin.contract.errors import InputError, MovieError

from ..maths.binning import binned_sums
from ..maths.fourier import FourierGrid, crop_half_spectrum, good_fft_size, spread_from_shells, sum_over_shells
from ..motion.whiten import mean_power, noise_power
from ..movies.patches import corner_for, cut_patches
from ..optics.predict import predict
from .calibrate import in_turn
from .load import load_stack
from .memory import within_memory
from .patches import initial_displacement, plan_frames
from .prepared import Prepared
from .scale import ScaleScan, tried_scales

LEAST_MOVIES, ENOUGH_PARTICLES, FRAMES = 2, 150, 16
BAND_ANGSTROM = (60.0, 10.0)
SAMPLES_PER_PERIOD = 2.6    # of the finest wave of the band in the binned images
SEEN = 5.0                  # z from which predictions are seen in the movies
CLEARLY_BETTER = 1.3, 4.0   # another reading must exceed this factor and this distance in z

AS_GIVEN = "as configured"
REMEDIES = {
    "upside down": "the movies fit when turned upside down: set movie_flip_y to the other value (--movie-flip-y yes or no)",
    "left to right": "the movies fit when turned left to right: the gain or movie was saved mirrored; convert the movies with a flip in x",
    "turned by 180 degrees": "the movies fit when turned by 180 degrees: set movie_flip_y to the other value and mirror the movies in x",
    "contrast inverted": "the movies correlate negatively: protein is bright in them, or the reference is inverted (protein must be "
                         "bright in the half-maps); invert the map",
    "origins with the other sign": "the particles fit with the other sign of rlnOriginXAngst/YAngst: negate both columns",
    "coordinates x 2": "the particles fit with coordinates twice as large: set coordinate_pixel_angstrom to twice its present value",
    "coordinates / 2": "the particles fit with coordinates half as large: set coordinate_pixel_angstrom to half its present value",
    "coordinates in particle pixels": "the particles fit with coordinates in pixels of the particle images: set "
                                      "coordinate_pixel_angstrom to the pixel size of the particle images",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreflightReport:
    """z of each reading that was tried, and how many particles were looked at."""

    z: Dict[str, float]
    particles: int
    scales: Dict[int, ScaleScan] = field(default_factory=dict)      # by reference

    @property
    def warnings(self):
        """What looks wrong but need not stop a job, sentences."""
        return tuple(text for scan in self.scales.values() for text in scan.warnings)

    @property
    def text(self):
        """One line for logs."""
        return "preflight on %d particles: %s" % (self.particles, ", ".join("%s z = %.1f" % item for item in self.z.items()))


def preflight(movies, particles_of, prepared: Prepared):
    """Correlation of every reading on a few movies.

    Returns :class:`PreflightReport`. Raises InputError with the remedy when another reading is clearly right, or when none
    correlates.
    """
    cross, power, scales, count, faults = {}, {}, {}, 0, []
    turn, wanted = in_turn(movies, particles_of)
    for looked_at, movie in enumerate(turn):
        if (looked_at >= LEAST_MOVIES and count >= ENOUGH_PARTICLES) or (looked_at >= wanted and count):
            break
        particles = particles_of(movie)
        try:
            readings, scan = _read_movie(movie, particles, prepared, {r for r, known in scales.items() if known.enough})
        except MovieError as error:
            faults.append(str(error))
            log.warning("%s is left out of the preflight: %s", movie.micrograph, error)
            continue
        count += len(particles)
        for name, (c, p) in readings.items():
            cross[name], power[name] = cross.get(name, 0.0) + c, power.get(name, 0.0) + p
        if scan is not None:
            scales[scan.reference] = scales[scan.reference] + scan if scan.reference in scales else scan
    if not count:
        raise InputError("none of the movies tried in the preflight could be used; the first says: %s" % faults[0])
    report = PreflightReport({n: cross[n] / max(power[n], 1e-30) ** 0.5 for n in cross}, count, scales)
    log.info(report.text)
    _decide(report)
    for scan in scales.values():
        log.info(scan.text)
    for text in report.warnings:
        log.warning(text)
    return report


def _decide(report: PreflightReport):
    given = report.z[AS_GIVEN]
    others = dict(report.z, **{"contrast inverted": -given})
    best = max((n for n in others if n != AS_GIVEN), key=others.get)
    factor, distance = CLEARLY_BETTER
    if others[best] > SEEN and others[best] > max(given, 0.0) * factor + distance:
        raise InputError("%s (z = %.1f against %.1f as configured, on %d particles)"
                         % (REMEDIES[best], others[best], given, report.particles))
    if not given >= SEEN:           # or it is no number
        raise InputError("the predictions do not correlate with the movies in any reading tried (%s): check that poses, half-maps and "
                         "movies belong together, the handedness, and the gain; --no-preflight goes on regardless" % report.text)


@within_memory
def _read_movie(movie, particles, prepared: Prepared, known_scales=()):
    """(cross, power) of each reading of one movie, and the :class:`ScaleScan` of the reference of most of its particles, None if it is known."""
    index = int(np.bincount(particles.reference).argmax())
    particles = particles[particles.reference == index]
    reference = prepared.references[index]
    binning = max(1, int(BAND_ANGSTROM[1] / SAMPLES_PER_PERIOD / movie.original_pixel_angstrom))
    pixel = movie.original_pixel_angstrom * binning
    size = good_fft_size(round(reference.box_px * reference.pixel_angstrom / pixel))
    kept = 2 * int(np.ceil(size * pixel / max(BAND_ANGSTROM[1], reference.limit_angstrom, 2.2 * pixel)))
    grid = FourierGrid(size, pixel, min(size, kept))
    unit = _signal_unit(movie, grid, prepared)

    def predicted(scale):
        larger = replace(reference, pixel_angstrom=reference.pixel_angstrom * scale)
        return unit * predict(larger, particles, prepared.optics[index], particles.half, grid, reference.spectrum.device).to(prepared.device)

    prediction = predicted(1.0)
    position = particles.position_yx_angstrom
    averages = _rigid_averages(movie, len(position), position.mean(0, keepdims=True), prepared, binning)
    share, plain = 1.0 / binning, averages[AS_GIVEN]
    if not bool(plain.max() > plain.min()):
        raise MovieError("the frames of %s are flat: check the movie and its gain" % movie.micrograph)
    result = {name: _correlate(image, position, (prediction,), grid, share)[0] for name, image in averages.items()}
    for name, other in _other_positions(particles, movie, prepared.optics[index]).items():
        result[name] = _correlate(plain, other, (prediction,), grid, share)[0]
    if index in known_scales:
        return result, None
    tried = tried_scales(reference.particle_radius_angstrom)
    sums = _correlate(plain, position, map(predicted, tried), grid, share)
    return result, ScaleScan(index, reference.pixel_angstrom, tried, *np.array(sums).reshape(-1, 2).T)


def _signal_unit(movie, grid: FourierGrid, prepared: Prepared):
    """What signal in units of the noise is proportional to: root of the dose that is averaged, and pixel^2 as predictions are sums over pixels.

    So movies of other gains, dose rates and pixels add up as they should, and one that was hardly exposed weighs no more than the others.
    """
    plan = plan_frames(movie, prepared.spec.inputs)
    dose = plan.dose_per_frame_e_per_A2 * min(len(plan), FRAMES)
    return (dose if dose > 0 else 1.0) ** 0.5 * grid.pixel_angstrom ** 2 * grid.step_per_angstrom


def _other_positions(particles, movie, optics):
    coordinate, origin = particles.coordinate_yx_angstrom, particles.origin_yx_angstrom
    others = {"coordinates x 2": 2 * coordinate - origin, "coordinates / 2": 0.5 * coordinate - origin}
    if np.sqrt((origin ** 2).sum(-1).mean()) > 1.0:
        others["origins with the other sign"] = coordinate + origin
    binned = optics[int(particles.optics_group[0])].image_pixel_angstrom / (movie.original_pixel_angstrom * movie.binning)
    if abs(binned - 1) > 0.05 and min(abs(binned - 2), abs(binned - 0.5)) > 0.05:
        others["coordinates in particle pixels"] = binned * coordinate - origin
    return others


def _rigid_averages(movie, n_particles, center_yx_angstrom, prepared: Prepared, binning):
    """Averages of the first frames moved back by whole pixels of the rigid motion, for the four ways a frame may be turned.

    Frames are averaged over ``binning`` x ``binning`` pixels first: the band needs no more, and four sums of them cost little.
    """
    stack = load_stack(movie, prepared, keep=True, n_particles=n_particles)
    plan = plan_frames(movie, prepared.spec.inputs)
    motion = initial_displacement(movie, center_yx_angstrom, plan)[0] / (movie.original_pixel_angstrom * binning)
    turns = {AS_GIVEN: (), "upside down": (0,), "left to right": (1,), "turned by 180 degrees": (0, 1)}
    averages, frame = {}, None
    for f in range(min(len(plan), FRAMES)):
        frame = stack.corrected(f, prepared.device, out=frame)
        small = binned_sums(frame, binning) / binning ** 2 if binning > 1 else frame
        back = [-int(v) for v in np.round(motion[f])]
        for name, axes in turns.items():
            turned = torch.roll(torch.flip(small, axes) if axes else small, back, (0, 1))
            averages[name] = turned if f == 0 else averages[name].add_(turned)
    return averages


def _correlate(image, position_yx_angstrom, predictions, grid: FourierGrid, pixel_share):
    """For each prediction: sum over particles of Re <patch, prediction> / noise, and its variance under pure noise, within the band.

    Patches are taken in units of their noise in the band. ``pixel_share``: movie pixels per pixel of ``image`` along a side, inverted.
    """
    # positions count from the centre of the first pixel; that of a binned image lies half a pixel less half its share further
    center = torch.as_tensor(position_yx_angstrom, dtype=torch.float64, device=image.device) / grid.pixel_angstrom
    center = center - 0.5 * (1.0 - pixel_share)
    corner, _ = corner_for(center, grid.size_px)
    inside = ((corner > -grid.size_px // 2) & (corner < torch.tensor(image.shape, device=image.device) - grid.size_px // 2)).all(-1)
    if not bool(inside.any()):
        return [(0.0, 0.0) for _ in predictions]
    patches = cut_patches(image, corner[inside], grid.size_px)
    spectrum = torch.fft.rfft2(patches - patches.mean((-2, -1), keepdim=True))
    spectrum = crop_half_spectrum(spectrum, grid.kept_px)
    noise = noise_power(mean_power(spectrum, grid))
    k = grid.shell_frequency_per_angstrom(image.device, torch.float64)
    band = (k >= 1.0 / BAND_ANGSTROM[0]) & (k <= 1.0 / BAND_ANGSTROM[1])
    level = noise[band].mean()
    if not bool(level > 0):         # nothing but one value where these particles would be
        return [(0.0, 0.0) for _ in predictions]
    filter_, spectrum = spread_from_shells((band / (noise / level).clamp(min=1e-6)).to(torch.float32), grid), spectrum / level.sqrt()
    return [_agreement(spectrum, prediction[inside], filter_, grid) for prediction in predictions]


def _agreement(spectrum, template, filter_, grid):
    cross = sum_over_shells(((spectrum * template.conj()).real * filter_).sum(0), grid).sum()
    power = sum_over_shells((torch.view_as_real(template).square().sum(-1) * filter_).sum(0), grid).sum()
    return float(cross), float(power)
