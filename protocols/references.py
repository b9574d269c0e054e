"""The blocks of the form that hold a particle set and its map, one per reference."""
from collections import namedtuple

from pyworkflow.protocol import params

MAX_REFERENCES = 4
Reference = namedtuple("Reference", "index particles volume mask particlesPointer pointers")
"""One filled block: its objects (mask may be None) and the pointers they came from."""


def suffix_of(index):
    """What is appended to the names of a reference's inputs and outputs."""
    return "" if index == 0 else str(index + 1)


def define_references(form):
    """Blocks of the form; those beyond the first show when their number is chosen."""
    _define(form.addGroup("Reference"), 0)
    form.addParam("numberOfReferences", params.EnumParam, default=0, choices=[str(n + 1) for n in range(MAX_REFERENCES)],
                  display=params.EnumParam.DISPLAY_COMBO, label="Number of references",
                  help="Particles of several conformations or species in the same movies are corrected together: one motion, each "
                       "particle against its own map. Their outputs stay separate.")
    for index in range(1, MAX_REFERENCES):
        condition = "numberOfReferences >= %d" % index
        _define(form.addGroup("Reference %d" % (index + 1), condition=condition), index, condition=condition)


def _define(group, index, **options):
    suffix, important = suffix_of(index), index == 0
    group.addParam("inputParticles" + suffix, params.PointerParam, pointerClass="SetOfParticles", important=important,
                   pointerCondition="hasAlignmentProj", label="Input particles",
                   help="Particles of a gold-standard 3D refinement: orientations, CTF, coordinates and half-sets.", **options)
    group.addParam("inputVolume" + suffix, params.PointerParam, pointerClass="Volume", important=important,
                   pointerCondition="hasHalfMaps", label="Input volume",
                   help="Map with its two half-maps, from the same refinement as the particles.", **options)
    group.addParam("inputMask" + suffix, params.PointerParam, pointerClass="VolumeMask", allowsNull=True, label="Input mask",
                   help="Soft mask around the particle. Empty: a sphere.", **options)


def chosen_references(protocol):
    """The blocks that are in use, as :class:`Reference`; objects not chosen yet are None."""
    found = []
    for index in range(protocol.numberOfReferences.get() + 1):
        pointers = [getattr(protocol, name + suffix_of(index)) for name in ("inputParticles", "inputVolume", "inputMask")]
        found.append(Reference(index, *([p.get() for p in pointers] + [pointers[0], pointers])))
    return found
