"""Row by row of docs/features.md: what the command line can do the form can do too, and every field of either form reaches the engine."""
import re

import pytest
from pyworkflow.protocol import params

from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.engine.options import option_name, spec_fields
from refmotion_plugin.protocols import form_fields
from refmotion_plugin.protocols.protocol_average_movies import FIELDS

from ..test_features import ROWS
from .test_protocol_average import averaging, imported  # noqa: F401  (fixtures)

BY_INPUT = {"--movies": "inputMovies", "--particles": "inputParticles", "--half1": "inputVolume", "--half2": "inputVolume", "--mask": "inputMask",
            "--reference": "numberOfReferences", "--coordinate-pixel": "coordinatePixel"}
"""Options whose form field is an input of Scipion."""
ELSEWHERE = {"--hyperparameters": "inputHyperparameters, or the protocol that imports them", "--relion-sigmas": "the protocol that imports hyperparameters",
             "--dose-weights": "inputDoseWeights", "--weights-pixel": "the protocol that imports dose weights", "--stage": "the protocol's steps",
             "--device": "the host's choice of GPUs", "--threads": "the host's number of threads", "--seed": "the spec's own: one search is like another",
             "--growing": "the state of the input sets", "--no-unweighted": "unweighted"}


def fields_of(spec, fields):
    """{option: form field} by the part and name of the spec that they set."""
    of_field = {(field.part, field.key): field.name for field in fields}
    options = {}
    for section, name, field in spec_fields(spec):
        option = option_name(name)
        if field.get_default() is True:
            option = option.replace("--", "--no-", 1)
        options[option] = of_field.get((section, name)) or of_field.get(("average" if section == "output" else section, name))
    return options


TEXTS = (params.FileParam, params.StringParam)
JOB, AVERAGE = fields_of(JobSpec, form_fields.ALL), fields_of(AverageSpec, FIELDS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: (row[0] + " " + row[1])[:40])
def test_what_has_an_option_has_a_field_in_the_same_row(row):
    options, fields = (set(re.findall(r"`([^`]+)`", row[i])) for i in (2, 3))
    known = AVERAGE if row[0] == "8" else JOB
    expected = {BY_INPUT.get(option) or known.get(option) for option in options if option not in ELSEWHERE or known.get(option)}
    assert None not in expected, "no field for one of %s" % options
    assert expected <= fields, "the row leaves out %s" % (expected - fields)


def test_no_option_is_without_a_field_unless_it_is_said_where_it_is():
    for known in (JOB, AVERAGE):
        assert {option for option, field in known.items() if field is None} <= set(ELSEWHERE) | set(BY_INPUT)


def test_every_field_of_the_averages_reaches_their_spec(averaging):  # noqa: F811
    protocol = averaging()
    for field in FIELDS:
        default = form_fields.default_of(field)
        value = len(field.choices) - 1 if field.choices else not default if isinstance(default, bool) else "some.file" if field.kind in TEXTS else 3
        getattr(protocol, field.name).set(value)
    spec = AverageSpec.build(protocol._jobData("movies.star"))
    for field in FIELDS:
        part = "output" if field.part == "average" else field.part
        assert getattr(getattr(spec, part), field.key) != form_fields.default_of(field), field.name
