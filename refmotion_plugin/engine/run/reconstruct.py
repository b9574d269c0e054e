"""A quick reconstruction: half-map FSC of a job's particles before and after, in the same poses."""
import logging
from dataclasses import dataclass, replace

import mrcfile
import numpy as np
import torch

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import located
from refmotion_plugin.contract.star import read_particles, read_table
from refmotion_plugin.contract.verdict import Change, load_verdict, save_verdict

from ..optics.backproject import BackProjection, symmetry_operators
from ..optics.fsc import half_map_fsc, resolution_at
from ..optics.reference import soft_sphere
from ..optics.volumes import read_map

CHUNK = 64                  # particles inserted at a time
THRESHOLD = 0.143

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HalfMaps:
    """Both half-maps, float32 (n, n, n), their FSC (shell,) within the mask and the resolution in A."""

    volumes: tuple
    pixel_angstrom: float
    fsc: torch.Tensor
    resolution_angstrom: float


def compare_job(results, symmetry, reference=0, progress=None):
    """:class:`HalfMaps` before and after of one reference of a finished job; before is None if the input has no images of the same size.

    The same particles count in both. ``progress(done, total, sentence)``. Raises InputError if nothing was polished or the point group is unknown.
    """
    operators = symmetry_operators(symmetry)
    stars, source = results.particle_stars(), results.spec.references[reference]
    if reference >= len(stars):
        raise InputError("%s has no polished particles of reference %d: run the job to its end first" % (results.layout.folder, reference + 1))
    after = particles_of(stars[reference], reference)
    before = particles_of(source.particles, reference)
    shared = _same(before, after)
    made = reconstruct(after, np.arange(len(after.names)), stars[reference], source.mask, operators, progress)
    if shared is None:
        log.info("the input of reference %d has no images of the same particles and size: there is nothing to compare with", reference + 1)
        return None, made
    return reconstruct(before, shared, source.particles, source.mask, operators, progress), made


def note(results, pair):
    """Put what was found into the job's verdict, if it has one. Errors are a third of the distance between shells (uniform in one shell)."""
    before, after = pair
    if before is None or not results.layout.verdict.exists():
        return
    extent = after.volumes[0].shape[0] * after.pixel_angstrom
    error = after.resolution_angstrom ** 2 / extent / 12 ** 0.5
    change = Change(before.resolution_angstrom, after.resolution_angstrom, error * 2 ** 0.5)
    save_verdict(results.layout.verdict, replace(load_verdict(results.layout.verdict), reconstruction_angstrom=change))


@dataclass(frozen=True)
class Images:
    """A particle STAR file with its images: set, names, pixel (A) and box of the first optics group."""

    particles: object
    names: list
    pixel_angstrom: float
    box_px: int


def particles_of(path, reference):
    """:class:`Images` of a particle STAR file; ``names`` is empty if it has no images."""
    particles = read_particles(path, reference)
    group = next(iter(particles.optics.values()))
    rows = read_table(path, "particles")
    return Images(particles, rows.columns["rlnImageName"] if "rlnImageName" in rows else [], group.image_pixel_angstrom, group.image_size_px)


def _same(before, after):
    """Rows of ``before`` of the particles of ``after``, which keeps the order and leaves some out; None if they cannot be compared."""
    if not before.names or (before.box_px, round(before.pixel_angstrom, 4)) != (after.box_px, round(after.pixel_angstrom, 4)):
        return None
    key = lambda t: list(zip(t.micrograph.tolist(), *t.rotation_zyz_degree.T.round(3).tolist(), t.defocus_u_angstrom.round(1).tolist()))
    rows, wanted = [], key(after.particles.table)
    for i, value in enumerate(key(before.particles.table)):
        if len(rows) < len(wanted) and value == wanted[len(rows)]:
            rows.append(i)
    return np.array(rows) if len(rows) == len(wanted) else None


def reconstruct(images: Images, rows, beside, mask, operators, progress=None):
    """:class:`HalfMaps` of some rows of a STAR file. MTF and odd aberrations are taken out as far as the optics table names them."""
    table, volumes = images.particles.table[rows], []
    for half in (1, 2):
        sums = BackProjection(images.box_px, images.pixel_angstrom, operators)
        members = np.flatnonzero(table.half == half)
        for begin in range(0, len(members), CHUNK):
            chosen = members[begin:begin + CHUNK]
            stack = torch.from_numpy(np.stack([_image(images.names[rows[i]], beside) for i in chosen]))
            for number in np.unique(table.optics_group[chosen]):
                part = table.optics_group[chosen] == number
                sums.add(stack[torch.from_numpy(part)], table[chosen[part]], images.particles.optics[int(number)])
            if progress:
                progress(begin + len(chosen), len(members), "half %d" % half)
        volumes.append(sums.volume())
    weight = _weight(mask, images)
    fsc = half_map_fsc(*[v * weight for v in volumes])[0]
    extent = images.box_px * images.pixel_angstrom
    return HalfMaps(tuple(volumes), images.pixel_angstrom, fsc, extent / resolution_at(fsc, THRESHOLD))


def _image(name, beside):
    number, _, path = name.partition("@")
    try:
        with mrcfile.mmap(str(located(path, beside)), mode="r", permissive=True) as file:
            data = file.data if file.data.ndim == 3 else file.data[None]
            return np.array(data[int(number) - 1], dtype=np.float32)
    except (OSError, ValueError, IndexError) as error:
        raise InputError("particle image %s of %s cannot be read (%s): give the project's folder as it was" % (name, beside, error)) from None


def _weight(mask, images):
    """The reference's mask if it is on the images' grid, else a soft sphere."""
    if mask is not None:
        values, pixel = read_map(mask, "mask")
        if values.shape[0] == images.box_px and abs(pixel - images.pixel_angstrom) < 1e-3 * pixel:
            return torch.as_tensor(values)
    return soft_sphere(images.box_px, 0.4 * images.box_px, 0.05 * images.box_px)
