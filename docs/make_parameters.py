"""Parameters as Markdown, from the specs themselves: writes docs/parameters.md and the marked tables of other pages.

    python docs/make_parameters.py

tests/test_docs.py holds that the pages are what this script writes.
"""
import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from refmotion_plugin.contract.average_spec import AverageSpec  # noqa: E402
from refmotion_plugin.contract.guidance import GUIDANCE  # noqa: E402
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS, JobSpec, ReferenceSpec  # noqa: E402
from refmotion_plugin.engine.options import SECTIONS, option_name, spec_fields  # noqa: E402

SHORT = ("first_frame", "last_frame", "gain", "gain_rotation", "gain_flip", "movie_flip_y", "eer_grouping", "coordinate_pixel_angstrom",
         "velocity_sigma", "correlation_distance_angstrom", "acceleration_sigma", "relion_sigmas", "hyperparameters_file", "rigid",
         "thoroughness", "resolution_limit_angstrom", "search_radius_angstrom", "passes", "weights_file", "box_px", "crop_box_px", "float16", "recenter",
         "tracks_star", "stop_after", "device", "threads")
"""Fields in README's table; the others are advanced."""

HYPERPARAMETERS = {
    "velocity_sigma": ("σ_V", "Å per e/Å²", "strength of the motion: standard deviation of the velocity late in the exposure"),
    "correlation_distance_angstrom": ("σ_D", "Å", "distance over which particles move alike"),
    "acceleration_sigma": ("σ_A", "Å per e/Å²", "strength of the change of velocity from frame to frame"),
    "early_factor": ("β", "", "velocity and acceleration are 1 + β times stronger at dose 0"),
    "early_dose_e_per_A2": ("τ", "e/Å²", "dose over which that fades"),
    "jitter_angstrom": ("σ_j", "Å", "independent motion of each particle in each frame"),
    "global_angstrom": ("σ_g", "Å", "shift of the whole frame: error of the input's rigid motion"),
    "offset_angstrom": ("σ_o", "Å", "constant error of each particle's catalogue position"),
    "kernel": ("K", "", "correlation over distance: `matern` (3/2) or `exponential`"),
    "correlated_acceleration": ("", "", "accelerations are correlated over distance like velocities"),
    "movie_spread": ("", "ln", "how much the strengths of a movie may differ from these (standard deviation); 0: not at all"),
    "common_sigma": ("σ_c", "Å per e/Å²", "how much the velocity of the whole movie changes from frame to frame: what is rougher in the input's "
                     "rigid motion is its error; 0: nothing is known of that, the input is taken as it is"),
    "jitter_followed": ("", "", "trajectories contain what data say of the jitter; `false`: they are as without jitter, which is only part of their standard deviations")}

HEAD = """# Parameters

Written by `python docs/make_parameters.py` from `refmotion_plugin/contract/spec.py`; do not edit by hand.

Every parameter has one name in `job.json` and one command line option of `refmotion run`; the fields of the Scipion form take their
defaults and explanations from the same place. An unknown option or key is an error. *none* means not given; of the prior's strengths the
value that stands in then follows. `--seed` decides which movies the search draws.
"""


def shown(value):
    """A default as a reader sees it."""
    return "none" if value is None else "`%s`" % (str(value).lower() if isinstance(value, bool) else value)


def option_of(name, field):
    """The option as it is typed."""
    option = option_name(name)
    return option.replace("--", "--no-", 1) if field.get_default() is True else option


def table(header, rows):
    """A Markdown table."""
    lines = ["| %s |" % " | ".join(row) for row in [header] + rows]
    return "\n".join([lines[0], "|" + "---|" * len(header)] + lines[1:])


def default_of(name, field):
    """The default, or that there is none; of the prior's strengths the value that stands in."""
    if field.is_required():
        return "required"
    usual = getattr(DEFAULT_HYPERPARAMETERS, name, None)
    return shown(field.get_default()) if usual is None else "none: `%s`" % usual


def meaning_of(field):
    """The explanation; of an option that switches something off, what it does then."""
    text = "do not " + field.description if field.get_default() is True else field.description
    return text.replace("<", "&lt;").replace("|", "\\|")


def average_table():
    """All parameters of averaging."""
    rows = [["`%s`" % option_of(name, field), "`%s.%s`" % (section, name), default_of(name, field), meaning_of(field)]
            for section, name, field in spec_fields(AverageSpec)]
    return table(["option", "in average.json", "default", "meaning"], rows)


def section_table(section):
    """All parameters of one part of a job."""
    rows = [["`%s`" % option_of(name, field), "`%s.%s`" % (section, name), default_of(name, field), meaning_of(field)]
            for part, name, field in spec_fields() if part == section]
    return table(["option", "in job.json", "default", "meaning"], rows)


def guidance_table():
    """When to touch what, and its name in other programs."""
    fields = {(part, name): field for part, name, field in spec_fields()}
    rows = [["`%s`" % option_of(key[1], fields[key]), known.label, known.when, known.cryosparc, known.relion]
            for key, known in GUIDANCE.items() if key in fields]
    return table(["option", "in the form", "when to touch it", "in CryoSPARC", "in RELION"], rows)


def reference_table():
    """The files of one reference."""
    rows = [["`--%s`" % name, "`references[].%s`" % name, default_of(name, field), meaning_of(field)]
            for name, field in ReferenceSpec.model_fields.items()]
    return table(["option", "in job.json", "default", "meaning"], rows)


def short_table():
    """The parameters most people need."""
    rows = [["`%s`" % option_of(name, field), default_of(name, field), meaning_of(field)]
            for _, name, field in spec_fields() if name in SHORT]
    return table(["option", "default", "meaning"], rows)


def hyperparameter_table():
    """The default prior."""
    rows = []
    for field in dataclasses.fields(DEFAULT_HYPERPARAMETERS):
        symbol, unit, meaning = HYPERPARAMETERS[field.name]
        rows.append(["`%s`" % field.name, symbol, shown(getattr(DEFAULT_HYPERPARAMETERS, field.name)), unit, meaning])
    return table(["in hyperparameters.json", "symbol", "default", "unit", "meaning"], rows)


def parameters_page():
    """The whole of docs/parameters.md."""
    parts = [HEAD, "## Reference\n\nThe first reference; `--reference particles=…,half1=…,half2=…,mask=…` adds a further one and may be "
                   "repeated.\n\n" + reference_table() + "\n"]
    for section in SECTIONS:
        model = JobSpec.model_fields[section].annotation
        parts.append("## %s\n\n%s\n\n%s\n" % (section.replace("_", " ").capitalize(), model.__doc__, section_table(section)))
    parts.append("## When to touch what\n\nThe help of the Scipion form says the same. The last columns name the field that does the same in "
                 "CryoSPARC's reference based motion correction and in RELION (Bayesian polishing; motion correction for what belongs to reading movies); an empty one has no counterpart.\n\n"
                 + guidance_table() + "\n")
    parts.append("## Hyperparameters of the prior\n\nThe file that `--hyperparameters` takes and every job writes. All keys or none; "
                 "what they do is in [method.md](method.md#prior).\n\n" + hyperparameter_table() + "\n")
    return "\n".join(parts)


def with_block(text, name, content):
    """``text`` with what stands between the markers of ``name`` replaced. Raises ValueError without the markers."""
    begin, end = "<!-- %s -->\n" % name, "<!-- /%s -->" % name
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError("the markers %s and %s were expected" % (begin.strip(), end))
    return head + begin + content + "\n" + end + tail


def pages():
    """{path: text} of every page that this script writes, as it should be."""
    readme, method, averaging = ROOT / "README.md", ROOT / "docs" / "method.md", ROOT / "docs" / "averaging.md"
    return {ROOT / "docs" / "parameters.md": parameters_page(),
            readme: with_block(readme.read_text(encoding="utf-8"), "parameters", short_table()),
            averaging: with_block(averaging.read_text(encoding="utf-8"), "average-parameters", average_table()),
            method: with_block(method.read_text(encoding="utf-8"), "hyperparameters", hyperparameter_table())}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
