"""What every movie of a job shares: parameters, references, optics, prior and the references' calibrated amplitude."""
import json
import logging
import math
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np
import torch

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.exchange import read_hyperparameters
from refmotion_plugin.contract.layout import atomic_write
from refmotion_plugin.contract.reading import read_text
from refmotion_plugin.contract.records import Hyperparameters, OpticsGroup, ParticleTable
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, JobSpec, relion_prior

from ..maths.fourier import FourierGrid, good_fft_size
from ..optics.volumes import load_reference
from .budget import GIB, Budget, find_budget

log = logging.getLogger(__name__)

MOST_PLANS = 64             # of transforms that a GPU keeps ready: all of one movie's, not those of every number of particles there was (torch's 4096 take GB)
FINEST_BAND_SHARE = 0.95    # of Nyquist of the movie: the outermost shells are incomplete


@dataclass(frozen=True)
class Amplitude:
    """S(k) of one reference: factor between its prediction and the movies, (shell,) over ``frequency_per_angstrom``."""

    frequency_per_angstrom: np.ndarray
    factor: np.ndarray

    def on(self, grid: FourierGrid, device):
        """S at the shells of a grid, float64 (n_shells,); 0 beyond the last known shell."""
        k = grid.shell_frequency_per_angstrom(dtype=torch.float64).numpy()
        return torch.from_numpy(np.interp(k, self.frequency_per_angstrom, self.factor, right=0.0)).to(device)


@dataclass(frozen=True)
class Prepared:
    """A job ready to process movies.

    ``amplitudes`` is None until :func:`stages.calibrate.calibrate` has run, which may leave ``warnings`` about the inputs, sentences.
    """

    spec: JobSpec
    references: tuple
    optics: tuple
    hyperparameters: Hyperparameters
    device: torch.device
    threads: int
    amplitudes: Optional[tuple] = None
    budget: Budget = Budget()
    warnings: tuple = ()

    def with_amplitudes(self, amplitudes, warnings=()):
        """The same job with calibrated references."""
        return replace(self, amplitudes=tuple(amplitudes), warnings=tuple(warnings))

    def band_per_angstrom(self, movie_pixel_angstrom):
        """Where alignment ends: the limit asked for, or where every reference's FSC vanishes, below the movie's Nyquist."""
        asked = self.spec.alignment.resolution_limit_angstrom
        limit = 1.0 / asked if asked else max(1.0 / r.limit_angstrom for r in self.references)
        return min(limit, FINEST_BAND_SHARE * 0.5 / movie_pixel_angstrom)

    def aligned_per_angstrom(self, movie_pixel_angstrom):
        """Where the components end that are aligned with: the whole band, or the fraction of its pixels that the search aligns with."""
        share = 1.0 if self.spec.alignment.all_components else self.spec.search.fourier_fraction ** 0.5
        return share * self.band_per_angstrom(movie_pixel_angstrom)

    def alignment_grid(self, movie_pixel_angstrom):
        """Grid of the patches that are aligned: the references' physical extent, cropped to the band."""
        extent = max(r.box_px * r.pixel_angstrom for r in self.references)
        size = good_fft_size(round(extent / movie_pixel_angstrom))
        kept = 2 * (math.ceil(self.band_per_angstrom(movie_pixel_angstrom) * size * movie_pixel_angstrom) + 1)
        return FourierGrid(size, movie_pixel_angstrom, min(size, kept))

    def optics_of(self, particles: ParticleTable, index):
        """Optics group of one particle of a table."""
        return self.optics[int(particles.reference[index])][int(particles.optics_group[index])]

    @property
    def optics_groups(self):
        """The job's optics groups (number, microscope), sorted by number: the group axis of FCC tables and dose weights.

        Groups of the same number in several sets are one if the microscope is the same, whatever the images' size.
        """
        found = {}
        for groups in self.optics:
            for number in groups:
                found.setdefault((number, _microscope(groups[number])), None)
        return sorted(found, key=lambda pair: pair[0])

    @property
    def voltages_kilovolt(self):
        """Acceleration voltage of each of the :attr:`optics_groups`."""
        return [microscope.voltage_kilovolt for _, microscope in self.optics_groups]

    def optics_index(self, particles: ParticleTable):
        """Position of each particle's optics group on the group axis, int64 (P,)."""
        place = {key: i for i, key in enumerate(self.optics_groups)}
        of_pair = {(r, n): place[n, _microscope(group)] for r, groups in enumerate(self.optics) for n, group in groups.items()}
        pairs = zip(particles.reference.tolist(), particles.optics_group.tolist())
        return np.array([of_pair[pair] for pair in pairs], dtype=np.int64)


def _microscope(group: OpticsGroup):
    """An optics group without what belongs to the particles' images."""
    return replace(group, name="", image_pixel_angstrom=0.0, image_size_px=0)


def prepare(spec: JobSpec, particle_sets, device, threads=1, processes=1):
    """Load what all movies share.

    ``particle_sets``: one per reference, each with ``.optics`` {number: OpticsGroup}; ``processes`` that share this machine. Raises InputError with the cause when a
    map, mask, hyperparameter file or optics group is unusable.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.backends.cuda.cufft_plan_cache[device].max_size = MOST_PLANS
    budget = find_budget(spec.compute, device, processes)
    references = tuple(load_reference(part, torch.device(spec.compute.slicing_device or device)) for part in spec.references)
    for part, reference in zip(spec.references, references):
        if 1.0 / reference.limit_angstrom <= 4.5 / (reference.box_px * reference.pixel_angstrom):
            raise InputError("half-maps %s and %s do not correlate within the mask: they look like noise or belong to different "
                             "maps; give the two half-maps of one refinement" % (part.half1, part.half2))
    return Prepared(spec, references, tuple(s.optics for s in particle_sets), choose_hyperparameters(spec), device, threads,
                    budget=_without(references, budget.measured(), device))


def _without(references, budget, device):
    """The budget less what the references take of the GPU that movies are worked on with."""
    if budget.device is None:
        return budget
    held = sum(r.spectrum.numel() * r.spectrum.element_size() for r in references if r.spectrum.device == device)
    if held >= budget.device:
        log.warning("references take %.2f GiB of the GPU, all that the job may use of it: particles are done one by one, give more with --gpu-memory or another GPU "
                    "for the references with --slicing-device", held / GIB)
    return replace(budget, device=max(0, budget.device - held))


def choose_hyperparameters(spec: JobSpec):
    """The prior a job asks for: a file, RELION's sigmas, the three strengths, or the defaults."""
    prior = spec.motion_prior
    if prior.hyperparameters_file:
        return read_hyperparameters(prior.hyperparameters_file)
    if prior.relion_sigmas:
        return relion_prior(*prior.relion_sigmas)
    if prior.velocity_sigma:
        return replace(DEFAULT_HYPERPARAMETERS, velocity_sigma=prior.velocity_sigma, acceleration_sigma=prior.acceleration_sigma,
                       correlation_distance_angstrom=prior.correlation_distance_angstrom, movie_spread=0.0)
    return DEFAULT_HYPERPARAMETERS


def save_amplitudes(path, amplitudes):
    """Write calibrated amplitudes as JSON (1/A and factors)."""
    rows = [{"frequency_per_angstrom": list(map(float, a.frequency_per_angstrom)), "factor": list(map(float, a.factor))}
            for a in amplitudes]
    with atomic_write(path, "w") as file:
        file.write(json.dumps({"amplitudes": rows}))


def load_amplitudes(path):
    """Read what :func:`save_amplitudes` wrote; InputError if it is something else."""
    try:
        rows = json.loads(read_text(path))["amplitudes"]
        return tuple(_amplitude(np.array(r["frequency_per_angstrom"], np.float64), np.array(r["factor"], np.float64)) for r in rows)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError("amplitude file %s cannot be read (%r): delete it and run the job again" % (path, error)) from None


def _amplitude(frequency_per_angstrom, factor):
    sound = factor.ndim == 1 and factor.shape == frequency_per_angstrom.shape and np.isfinite(factor).all() and (np.diff(frequency_per_angstrom) > 0).all()
    if not sound:
        raise ValueError("frequencies and factors do not fit")
    return Amplitude(frequency_per_angstrom, factor)
