"""docs/features.md names options, form fields, outputs and tests that exist."""
import re
from pathlib import Path

import pytest

from refmotion_plugin.contract.averages import AverageLayout
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.engine import cli

ROOT = Path(__file__).resolve().parents[1]
ROWS = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in (ROOT / "docs" / "features.md").read_text(encoding="utf-8").split("\n")
        if line.startswith("| ")][1:]


def names(column):
    """Everything written as code in a column of the table."""
    return [name for row in ROWS for name in re.findall(r"`([^`]+)`", row[column])]


def source(pattern, folder):
    return {name for path in sorted((ROOT / folder).glob("**/*.py")) for name in re.findall(pattern, path.read_text(encoding="utf-8"))}


def options():
    inner = next(a for a in cli.command_parser([])._actions if isinstance(a.choices, dict)).choices
    return {name for command in ("run", "average") for action in inner[command]._actions for name in action.option_strings}


def test_all_sixteen_are_there():
    assert {row[0] for row in ROWS if row[0]} == {str(n) for n in range(1, 17)}
    assert all(len(row) == 6 and row[1] and row[5] for row in ROWS)


@pytest.mark.parametrize("name", sorted(set(names(2))))
def test_options_exist(name):
    assert name in options()


def test_form_fields_exist():
    known = source(r'_field\(\s*"(\w+)"', "protocols") | source(r'add(?:Param|Hidden)\(\s*"(\w+)"', "protocols")
    assert sorted(set(names(3)) - known) == []


def test_outputs_exist():
    job = JobLayout(Path("J"))
    known = {path.name for layout in (job, AverageLayout(Path("J"))) for path in vars(layout).values() if isinstance(path, Path)}
    known |= {job.bfactors(0).name} | {job.particles(r, n).name for r, n in ((0, 1), (0, 2), (1, 2))}
    assert sorted(set(names(4)) - known) == []


def test_tests_exist():
    assert sorted(set(names(5)) - source(r"def (test_\w+)\(", "tests")) == []


def test_every_field_of_the_form_that_users_know_is_named():
    """What the form shows at first sight is in the table."""
    shown = source(r'_field\("(\w+)", "(?:motion_prior|search|output|dose)"', "protocols")
    assert sorted(shown - set(names(3)) - {"weightsTolerance"}) == []
