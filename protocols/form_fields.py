"""The parameters of a job as form fields: names and layout here, defaults and explanations from ``contract.spec``."""
import os
import re
from collections import namedtuple

from pyworkflow.protocol import params

from refmotion_plugin.contract import guidance, spec
from refmotion_plugin.contract.average_spec import AverageOutputSpec
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS as PRIOR

Field = namedtuple("Field", "name part key label kind advanced choices")
"""One form field: parameter name, part of the JobSpec and key in it, label, pyworkflow class, level, and for a choice the
values that the spec takes, in the order shown."""

_PARTS = {"inputs": spec.InputSpec, "motion_prior": spec.PriorSpec, "search": spec.SearchSpec,
          "alignment": spec.AlignmentSpec, "dose": spec.DoseSpec, "output": spec.OutputSpec, "compute": spec.ComputeSpec,
          "average": AverageOutputSpec}


def _field(name, part, key, kind, advanced=False, choices=()):
    return Field(name, part, key, guidance.GUIDANCE[part, key].label, kind, advanced, choices)


STRENGTHS = (
    _field("velocitySigma", "motion_prior", "velocity_sigma", params.FloatParam),
    _field("correlationDistance", "motion_prior", "correlation_distance_angstrom", params.FloatParam),
    _field("accelerationSigma", "motion_prior", "acceleration_sigma", params.FloatParam))
SEARCH = (
    _field("searchThoroughness", "search", "thoroughness", params.EnumParam, False,
           ("none", "fast", "balanced", "extensive")),
    _field("targetParticles", "search", "target_particles", params.IntParam, True),
    _field("fourierFraction", "search", "fourier_fraction", params.FloatParam, True),
    _field("maxPriorStrength", "search", "max_prior_strength", params.FloatParam, True),
    _field("searchCache", "search", "cache_gib", params.FloatParam, True))
ALIGNMENT = (
    _field("rigidOnly", "motion_prior", "rigid", params.BooleanParam, True),
    _field("resolutionLimit", "alignment", "resolution_limit_angstrom", params.FloatParam, True),
    _field("allComponents", "alignment", "all_components", params.BooleanParam, True),
    _field("searchRadius", "alignment", "search_radius_angstrom", params.FloatParam, True),
    _field("alignmentPasses", "alignment", "passes", params.IntParam, True))
DOSE = (
    _field("fitLowResolution", "dose", "fit_low_resolution_angstrom", params.FloatParam, True),
    _field("weightNormalisation", "dose", "normalisation", params.EnumParam, True, ("sum", "power", "peak")),
    _field("weightsTolerance", "dose", "error_tolerance", params.FloatParam, True))
FRAMES = (
    _field("firstFrame", "inputs", "first_frame", params.IntParam),
    _field("lastFrame", "inputs", "last_frame", params.IntParam))
GAIN = (
    _field("gainFile", "inputs", "gain", params.FileParam),
    _field("gainRotation", "inputs", "gain_rotation", params.EnumParam, False, (0, 1, 2, 3)),
    _field("gainFlip", "inputs", "gain_flip", params.EnumParam, False, (0, 1, 2)))
READING = (
    _field("movieFlip", "inputs", "movie_flip_y", params.EnumParam, True, (None, False, True)),
    _field("defectFile", "inputs", "defects", params.FileParam, True),
    _field("hotPixelSigma", "inputs", "hot_pixel_sigma", params.FloatParam, True),
    _field("eerGrouping", "inputs", "eer_grouping", params.IntParam, True),
    _field("preflight", "inputs", "preflight", params.BooleanParam, True),
    _field("skipOtherFrameCounts", "inputs", "skip_other_frame_counts", params.BooleanParam, True),
    _field("halfSetsFromOrder", "inputs", "half_sets_from_order", params.BooleanParam, True))
MOVIES = GAIN + READING
OUTPUT = (
    _field("stopAfter", "output", "stop_after", params.EnumParam, False,
           ("hyperparameters", "dose-weights", "particles")),
    _field("boxSize", "output", "box_px", params.IntParam),
    _field("cropBoxSize", "output", "crop_box_px", params.IntParam),
    _field("float16", "output", "float16", params.BooleanParam),
    _field("recenter", "output", "recenter", params.BooleanParam),
    _field("tracksStar", "output", "tracks_star", params.BooleanParam, True),
    _field("particleDiameter", "output", "particle_diameter_angstrom", params.FloatParam, True))
COMPARISON = (
    _field("reconstruct", "output", "reconstruct", params.BooleanParam),
    _field("reconstructionSymmetry", "output", "symmetry", params.StringParam))
AVERAGE = (
    _field("binning", "average", "binning", params.FloatParam),
    _field("unweighted", "average", "unweighted", params.BooleanParam),
    _field("evenOdd", "average", "even_odd", params.EnumParam, False, ("none", "unweighted", "weighted")),
    _field("float16", "average", "float16", params.BooleanParam),
    _field("localMotion", "average", "local_motion", params.BooleanParam, True))
COMPUTE = (
    _field("memory", "compute", "memory_gib", params.FloatParam, True),
    _field("gpuMemory", "compute", "gpu_memory_gib", params.FloatParam, True),
    _field("scratch", "compute", "scratch_gib", params.FloatParam, True),
    _field("moviesPerGpu", "compute", "movies_per_gpu", params.IntParam, True),
    _field("oversubscription", "compute", "oversubscription_gib", params.FloatParam, True),
    _field("slicingDevice", "compute", "slicing_device", params.StringParam, True),
    _field("workers", "compute", "workers", params.IntParam, True),
    _field("clusterFile", "compute", "cluster", params.FileParam, True),
    _field("schedulerAddress", "compute", "scheduler", params.StringParam, True),
    _field("readTimeout", "compute", "read_timeout_seconds", params.FloatParam, True),
    _field("workerTimeout", "compute", "worker_timeout_seconds", params.FloatParam, True))
ALL = STRENGTHS + SEARCH + ALIGNMENT + DOSE + FRAMES + MOVIES + OUTPUT + COMPARISON + COMPUTE
DECIDING = tuple(field for field in ALL if field.part != "compute" and field.key not in ("stop_after", "cache_gib"))
"""Fields that decide what a stage computes; the others say where and how far."""

_SHOWN = {"gainRotation": ["none", "90° counter-clockwise", "180°", "270° counter-clockwise"],
          "gainFlip": ["none", "upside down", "left to right"], "movieFlip": ["as the format says", "no", "yes"],
          "weightNormalisation": ["sum: signal kept", "power: white noise stays white", "peak"],
          "evenOdd": ["none", "of the unweighted sum", "of the dose-weighted sum"],
          "searchThoroughness": ["no: use the default prior", "fast", "balanced", "extensive"],
          "stopAfter": ["hyperparameters", "dose weights", "particles"]}
_EXPLAINED = {       # where the contract's words are about numbers and names that the form does not show
    "searchThoroughness": "search for the strengths by the evidence of what aligns, on few or many rays; held-out data of the opposite half-map judge them; no: the given ones or the default",
    "gainFile": "gain reference that replaces the one that the movies bring; empty: that of the movies",
    "gainRotation": "turn of the gain, as MotionCor and RELION number it (0 to 3)",
    "gainFlip": "flip of the gain after its turn, as MotionCor and RELION number it (0 to 2)",
    "movieFlip": "turn frames upside down on reading; as the format says: TIFF movies are turned, MRC and EER not, as RELION does",
    "stopAfter": "where the run ends: after the hyperparameters, the dose weights, or the particles",
    "workerTimeout": "time without any worker of the scheduler or cluster after which the run stops, to be continued; 0: never",
    "oversubscription": "memory of a GPU, GiB, from which it works on two movies at a time, unless a number of movies is given"}
_USUAL = {"velocitySigma": "%.3g" % PRIOR.velocity_sigma, "correlationDistance": "%.0f" % PRIOR.correlation_distance_angstrom,
          "accelerationSigma": "%.3g" % PRIOR.acceleration_sigma}


def add_field(form, field, condition=None):
    """Add ``field`` to a form, a group or a line; default and help come from the contract."""
    default = default_of(field)
    options = {"default": field.choices.index(default) if field.choices else default, "label": field.label, "help": help_of(field)}
    if condition:
        options["condition"] = condition
    if field.advanced:
        options["expertLevel"] = params.LEVEL_ADVANCED
    if field.choices:
        options.update(choices=_SHOWN[field.name], display=params.EnumParam.DISPLAY_COMBO)
    elif default is None:
        options["allowsNull"] = True
    form.addParam(field.name, field.kind, **options)


def add_group(form, label, fields, condition=None):
    """A group of fields, hidden with them where all are advanced."""
    options = {"expertLevel": params.LEVEL_ADVANCED} if all(field.advanced for field in fields) else {}
    group = form.addGroup(label, **options)
    for field in fields:
        add_field(group, field, condition)
    return group


def default_of(field):
    """The spec's default of a field."""
    return _PARTS[field.part].model_fields[field.key].default


def help_of(field):
    """What a field is, its special values, when to touch it, and its name in other programs."""
    text = _sentence(_EXPLAINED.get(field.name) or _PARTS[field.part].model_fields[field.key].description)
    if field.name in _USUAL:
        text += "\nEmpty: the default %s, or what the input hyperparameters say. Give all three strengths or none of them." % _USUAL[field.name]
    elif default_of(field) is None and not field.choices:
        text = text.replace("; none:", "; empty:")
        text += "" if "empty:" in text else "\nEmpty: none."
    advice, names = guidance.GUIDANCE[field.part, field.key], guidance.elsewhere(field.part, field.key)
    return "\n\n".join(filter(None, [text, "_When_: " + advice.when.replace("e/A^2", "e/Å²"), "_Elsewhere_: %s." % names if names else ""]))


def _sentence(text):
    """A description of the contract, which keeps to plain letters, as the form shows it."""
    text = re.sub(r"(?<=, )A\b|(?<=in )A\b|\bA(?= per)", "Å", text.replace("e/A^2", "e/Å²"))
    return text[0].upper() + text[1:] + "."


def with_reading(inputs, reading):
    """``inputs`` of a JobSpec with what the program that aligned the movies implies, where the form leaves it open."""
    turned = any(key in inputs for key in ("gain", "gain_rotation", "gain_flip"))
    implied = {key: value for key, value in reading.items() if key not in inputs and not (turned and key == "gain_flip")}
    return dict(implied, **inputs)


def values_of(protocol, fields=ALL):
    """``{part: {key: value}}`` of the fields whose value is not the default, for ``JobSpec.build``."""
    parts = {}
    for field in fields:
        value = getattr(protocol, field.name).get()
        if field.choices:
            value = field.choices[value]
        elif value == "":
            value = None
        if value != default_of(field):
            parts.setdefault(field.part, {})[field.key] = value
    return parts


def spec_of(cls, data, fields=ALL):
    """``cls.build`` (of JobSpec or AverageSpec) of what the form says. Raises InputError that names fields by their labels."""
    try:
        return cls.build(data, "The form")
    except InputError as error:
        raise InputError(_with_labels(str(error), fields)) from None


def _with_labels(text, fields):
    """A sentence of the contract with labels in the place of its keys; of single words, which may be meant as words, only after their part."""
    parts = "(?:%s)" % "|".join(set(_PARTS) - {"average"})
    for field in fields:
        text = re.sub(r"\b%s\.%s\b" % (parts, field.key), "'%s'" % field.label, text)
        if "_" in field.key:
            text = re.sub(r"\b%s\b" % field.key, "'%s'" % field.label, text)
    return re.sub(r"(?<=: |; )%s: " % parts, "", text)


def missing_files(protocol, fields=ALL):
    """Sentences on files that were named and do not exist."""
    named = [(field.label, getattr(protocol, field.name).get()) for field in fields if field.kind is params.FileParam]
    return ["%s: %s is not a file: correct the path, or leave the field empty." % pair for pair in named if pair[1] and not os.path.isfile(pair[1])]
