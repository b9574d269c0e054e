"""The comparison by reconstruction of a job's particles before and after: from its files into its verdict."""
import logging
from collections import Counter
from dataclasses import asdict, dataclass, replace

import numpy as np

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import along_input_beside, located, read_object, write_json
from refmotion_plugin.contract.star import read_particles, read_table
from refmotion_plugin.contract.verdict import GIVEN_IMAGES, INPUT_MOTION, Reconstruction, load_verdict, read_reconstructions, save_verdict

from ..optics.symmetry import symmetry_operators
from ..stages.reconstruct import BEYOND, Images, compare_images

__all__ = ["BEYOND", "Place", "Teller", "keep", "kept", "note", "reconstruct_job"]
DIGITS = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where it is made: ``device``, ``room`` bytes for the sums (None: no limit), and per reference the finest detail looked at first, A, or None."""

    device: str = "cpu"
    room: int = None
    finest_angstrom: tuple = ()


def reconstruct_job(results, symmetry, place=Place(), progress=None):
    """:class:`~.contract.verdict.Reconstruction` of every reference of a job (JobResults), one with its reason where it fails.

    ``progress(reference, done, total)`` in particles. Raises InputError for an unknown point group.
    """
    operators = symmetry_operators(symmetry)
    found = []
    for reference in range(len(results.spec.references)):
        try:
            tell = (lambda done, total, reference=reference: progress(reference, done, total)) if progress else None
            found.append(compare_reference(results, reference, operators, symmetry.upper(), place, tell))
        except (InputError, OSError) as error:
            found.append(_failed(reference, symmetry, str(error)))
        except Exception as error:      # a comparison must not cost the particles that it is about
            log.exception("unexpected error in the reconstruction of reference %d", reference + 1)
            found.append(_failed(reference, symmetry, "unexpected %s: %s (the full text is in the log)" % (type(error).__name__, str(error).split("\n")[0])))
    return tuple(found)


def _failed(reference, symmetry, reason):
    log.error("reference %d was not reconstructed: %s", reference + 1, reason)
    return Reconstruction(reference, 0, symmetry.upper(), "", fault=reason)


def compare_reference(results, reference, operators, symmetry, place=Place(), progress=None):
    """:class:`Reconstruction` of one reference. Raises InputError if nothing was polished or an image cannot be read."""
    spec = results.spec
    star = results.layout.particles(reference, len(spec.references))
    if not star.exists():
        raise InputError("%s does not exist: run the job to its end first" % star)
    images, before = images_of(star, spec, reference)
    finest = place.finest_angstrom[reference] if place.finest_angstrom else None
    found = compare_images(images, spec.references[reference].mask, operators, place.device, place.room, finest, progress)
    numbers = lambda curve: () if curve is None else tuple(np.round(np.asarray(curve, dtype=float), DIGITS).tolist())
    change = found.change
    return Reconstruction(reference, found.particles, symmetry, before, numbers(found.frequency_per_angstrom), numbers(change.before), numbers(change.after),
                          *[None if v is None else round(v, DIGITS) for v in (change.before_angstrom, change.after_angstrom, change.error_angstrom,
                                                                            change.snr_gain, change.snr_error)])


class Teller:
    """Progress for a StatusLog, in twentieths of a reference's particles."""

    def __init__(self, status):
        self.status, self.reference, self.said = status, None, 0

    def __call__(self, reference, done, total):
        if reference != self.reference or done < self.said:        # the next one, or once more with all of the images
            self.status.begin("reconstruct", total, unit="particle")
            self.reference, self.said = reference, 0
        if done - self.said >= total / 20 or done == total:
            self.status.reach(done)
            self.said = done


# ---- which images ---------------------------------------------------------------------------------------------------------------

def images_of(star, spec, reference):
    """:class:`Images` of the polished particles and, as available, those along the input motion or those that the input names; and which."""
    particles = read_particles(star, reference)
    after = _places(read_table(star, "particles"), star)
    table, geometry = particles.table, [_geometry(particles.optics[int(g)]) for g in particles.table.optics_group]
    usual = Counter(geometry).most_common(1)[0][0]
    rows = np.array([i for i, g in enumerate(geometry) if g == usual])
    if len(rows) < len(geometry):
        log.warning("%d of %d particles have images of another size and are left out of the reconstruction", len(geometry) - len(rows), len(geometry))
    after, table = [after[i] for i in rows], table[rows]
    before, what = _before(after, table, usual, spec, reference)
    kinds = (before, after) if what else (after,)
    return Images(table, particles.optics, kinds, *usual), what


def _before(after, table, geometry, spec, reference):
    beside = {path: along_input_beside(path) for path in {path for path, _ in after}}
    if all(path.exists() for path in beside.values()):
        return [(str(beside[path]), number) for path, number in after], INPUT_MOTION
    path = spec.references[reference].particles
    rows = read_table(path, "particles")
    given = read_particles(path, reference, half_sets_from_order=spec.inputs.half_sets_from_order)
    if "rlnImageName" not in rows:
        return None, ""
    if spec.output.recenter or any(group.ctf_premultiplied for group in given.optics.values()):
        return None, ""         # these are centred elsewhere, or were multiplied by the CTF already
    same = same_particles(given.table, table)
    if same is None or any(_geometry(given.optics[int(g)]) != geometry for g in given.table.optics_group[same]):
        return None, ""
    places = _places(rows, path)
    return [places[i] for i in same], GIVEN_IMAGES


def _geometry(group):
    return round(group.image_pixel_angstrom, 4), group.image_size_px


def _places(rows, star):
    """(stack, number from 0) of every row's image."""
    found, seen = [], {}
    for name in rows.text("rlnImageName").tolist():
        number, _, path = name.partition("@")
        if not (number.isdecimal() and int(number) and path):
            raise InputError("%s: rlnImageName is %r where number@stack was expected" % (star, name))
        if path not in seen:
            seen[path] = str(located(path, star))
        found.append((seen[path], int(number) - 1))
    return found


def same_particles(before, after):
    """Rows of ``before`` of the particles of ``after``, which keeps the order and leaves some out; None if they cannot be found."""
    def key(table):
        return list(zip(table.micrograph.tolist(), *table.rotation_zyz_degree.T.round(3).tolist(), table.defocus_u_angstrom.round(1).tolist()))
    rows, wanted = [], key(after)
    for i, value in enumerate(key(before)):
        if len(rows) < len(wanted) and value == wanted[len(rows)]:
            rows.append(i)
    return np.array(rows) if len(rows) == len(wanted) else None


# ---- what is kept ---------------------------------------------------------------------------------------------------------------

def keep(layout, found, mark=None):
    """Write reconstruction.json, and the findings into the verdict if there is one."""
    write_json(layout.reconstruction, {"fingerprint": mark, "reconstructions": [asdict(r) for r in found]})
    note(layout, found)


def note(layout, found):
    """Put the findings into the verdict, if there is one and it has others."""
    if layout.verdict.exists():
        verdict = load_verdict(layout.verdict)
        if verdict.reconstructions != found:
            save_verdict(layout.verdict, replace(verdict, reconstructions=found))


def kept(layout, mark):
    """The findings that were kept with ``mark``, or None."""
    data = read_object(layout.reconstruction)
    if data.get("fingerprint") != mark:
        return None
    try:
        return read_reconstructions(data["reconstructions"])
    except (TypeError, KeyError):
        return None
