"""Command line options made from the specs' own fields, so that names, help and defaults live in one place."""
import argparse
import dataclasses
import sys
import typing

from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.spec import JobSpec, ReferenceSpec

SECTIONS = ("inputs", "motion_prior", "search", "alignment", "dose", "output", "compute")
NAMES = {"velocity_sigma": "spatial-strength", "acceleration_sigma": "acceleration-strength", "weights_file": "dose-weights",
         "thoroughness": "search", "error_tolerance": "weights-tolerance"}
UNITS = ("_angstrom", "_px", "_gib", "_file", "_seconds")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message):
        """Leave with exit code 2 and what was wrong."""
        sys.stderr.write("%s: %s; see '%s --help'\n" % (self.prog, message, self.prog))
        raise SystemExit(2)


def option_name(field):
    """``crop_box_px`` -> ``--crop-box``."""
    for unit in UNITS:
        if field.endswith(unit) and field not in NAMES:
            field = field[:-len(unit)]
    return "--" + NAMES.get(field, field).replace("_", "-")


def spec_fields(spec=JobSpec):
    """(section, field name, field) of every field of a spec that has an option."""
    for section in SECTIONS:
        if section not in spec.model_fields:
            continue
        model = spec.model_fields[section].annotation
        for name, field in model.model_fields.items():
            yield section, name, field


def add_job_options(parser):
    """All options of a job. Options that are not given leave no trace: defaults are the spec's."""
    reference = parser.add_argument_group("reference", "the first particle set with its map; --reference adds further ones")
    for name, field in ReferenceSpec.model_fields.items():
        reference.add_argument("--" + name, metavar="FILE", default=argparse.SUPPRESS, help=field.description)
    reference.add_argument("--reference", action="append", default=argparse.SUPPRESS,
                           metavar="particles=P.star,half1=A.mrc,half2=B.mrc[,mask=M.mrc]", help="a further reference; may be repeated")
    _add_sections(parser, JobSpec)
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="decides which movies the search draws (default: %d)"
                        % JobSpec.model_fields["seed"].default)


def add_average_options(parser):
    """All options of averaging."""
    _add_sections(parser, AverageSpec)


def _add_sections(parser, spec):
    groups = {s: parser.add_argument_group(s.replace("_", " "), spec.model_fields[s].annotation.__doc__)
              for s in SECTIONS if s in spec.model_fields}
    for section, name, field in spec_fields(spec):
        _add(groups[section], option_name(name), section + "." + name, field.annotation, field.get_default(), field.description)


def _add(group, option, dest, annotation, default, description, negation="do not "):
    if isinstance(default, bool):
        option, action = (option.replace("--", "--no-", 1), "store_false") if default else (option, "store_true")
        group.add_argument(option, dest=dest, action=action, default=argparse.SUPPRESS,
                           help=(negation if default else "") + description)
        return
    kind, nargs = _kind(annotation)
    shown = "" if default is None or repr(default) == "PydanticUndefined" else " (default: %s)" % (default,)
    group.add_argument(option, dest=dest, type=kind, nargs=nargs, default=argparse.SUPPRESS,
                       metavar="yes|no" if kind is yes_or_no else kind.__name__.upper(), help=(description + shown).replace("%", "%%"))


def add_conversions(commands, convert_weights, convert_hyperparameters):
    """The commands that read and write other programs' files, run by the two given functions."""
    text = "dose weights from and to weights.npz, .json, RELION's bfactors.star, CryoSPARC's refm_empirical_dw.npy"
    weights = commands.add_parser("convert-weights", help=text, description="Convert %s; the endings of IN and OUT say the formats." % text)
    numbers = (("dose-per-frame", positive, None, "dose per frame, e/A^2; of the movies that IN was measured on if IN holds no doses (.star, "
                                                  ".npy), else of the movies that OUT is for"),
               ("pre-exposure", from_zero, 0.0, "dose before the first frame, e/A^2; goes with --dose-per-frame (default: 0)"),
               ("frames", counting, None, "number of frames of OUT; none: as IN"),
               ("pixel", positive, None, "pixel size that CryoSPARC works at, A; needed for .npy"),
               ("bins", counting, None, "bins of a .npy to be written, for CryoSPARC those of the file it replaces; none: twice as fine as IN"),
               ("voltage", positive, None, "kV; a .npy beyond the last frequency of IN follows the exposure curve of this voltage; "
                                           "none: IN's last weights"),
               ("group", counting, 1, "optics group written to .star and .npy, counted from 1 (default: 1)"))
    for name, kind, default, meaning in numbers:
        weights.add_argument("--" + name, type=kind, default=default, metavar="NUMBER", help=meaning)
    weights.add_argument("--normalisation", choices=("sum", "power", "peak"), default="sum", help="of OUT if IN does not say (default: sum)")
    text = "hyperparameters from and to hyperparameters.json and RELION's opt_params*.txt"
    hyperparameters = commands.add_parser("convert-hyperparameters", help=text, description="Convert %s." % text)
    for parser, command in ((weights, convert_weights), (hyperparameters, convert_hyperparameters)):
        parser.add_argument("input", metavar="IN", help="file to read")
        parser.add_argument("out", metavar="OUT", help="file to write")
        parser.set_defaults(command=command)


def positive(text):
    """A number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("%s is not a number above 0" % text)
    return number


def from_zero(text):
    """A number from 0 up."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("%s is not a number from 0 up" % text)
    return number


def counting(text):
    """A whole number from 1 up."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("%s is not a whole number from 1 up" % text)
    return number


def yes_or_no(text):
    """True or False from yes or no."""
    if text.lower() in ("yes", "true", "1"):
        return True
    if text.lower() in ("no", "false", "0"):
        return False
    raise argparse.ArgumentTypeError("%r is neither yes nor no" % text)


def _kind(annotation):
    """(converter, nargs) of a type annotation: a plain type, an optional one, or a tuple of one type."""
    arguments = [a for a in typing.get_args(annotation) if a is not type(None)]
    if typing.get_origin(annotation) is typing.Union:
        return _kind(arguments[0])
    if typing.get_origin(annotation) is tuple:
        return arguments[0], "+" if Ellipsis in arguments else len(arguments)
    return (yes_or_no if annotation is bool else annotation), None


def job_spec(values, base=None):
    """JobSpec from parsed options ``values`` (a dict) over ``base`` (a JobSpec, or none).

    Raises InputError that names the options.
    """
    data = _over(base, values)
    if "seed" in values:
        data["seed"] = values["seed"]
    data["references"] = _references(values, data.get("references") or [])
    if "movies" not in data.get("inputs", {}) or not data.get("references"):
        raise InputError("a job needs --movies, --particles, --half1 and --half2, or --job with a job.json: see 'refmotion run --help'")
    return _built(JobSpec, data)


def average_spec(values, base=None):
    """AverageSpec from parsed options over ``base`` (an AverageSpec, or none). Raises InputError that names the options."""
    data = _over(base, values)
    if "movies" not in data.get("inputs", {}):
        raise InputError("averaging needs --movies, or --job with an average.json: see 'refmotion average --help'")
    return _built(AverageSpec, data)


def _over(base, values):
    """Nested parameters of ``base`` with those options that were given."""
    data = base.model_dump() if base is not None else {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        if section in SECTIONS:
            data.setdefault(section, {})[name] = tuple(value) if isinstance(value, list) else value
    return data


def _built(spec, data):
    try:
        return spec.build(data, "the options")
    except InputError as error:
        raise InputError(_with_option_names(str(error), spec)) from None


def _with_option_names(text, spec):
    for path, name in sorted((("%s.%s" % (s, n), n) for s, n, _ in spec_fields(spec)), key=lambda p: -len(p[0])):
        text = text.replace(path, option_name(name))
    return text


def _references(values, before):
    """References that ``values`` give over those there were ``before``: single options change the first one, ``--reference`` takes the place of the others."""
    first = dict(before[0] if before else {}, **{n: values[n] for n in ReferenceSpec.model_fields if n in values})
    references = [first] if first else []
    if not values.get("reference"):
        return references + list(before[1:])
    for text in values.get("reference", []):
        parts = [part.partition("=") for part in text.split(",")]
        if any(not sign or not value for _, sign, value in parts):
            raise InputError("--reference %s: particles=FILE,half1=FILE,half2=FILE with an optional mask=FILE was expected" % text)
        references.append({name.strip(): value.strip() for name, _, value in parts})
    return references


def add_dataclass_options(parser, cls, choices):
    """One option per field of a frozen dataclass; ``choices``: {name of a field: what it may be}, for the help."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        _add(parser, "--" + field.name.replace("_", "-"), field.name, hints[field.name], field.default,
             ": ".join([field.name.replace("_", " ")] + [", ".join(one) for name, one in choices.items() if name == field.name]), negation="no ")


def dataclass_from(values, cls):
    """The dataclass with the given options over its defaults."""
    names = {f.name for f in dataclasses.fields(cls)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names})
