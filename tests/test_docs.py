"""What the documents say exists: pages are up to date, commands and options parse, links and names resolve."""
import importlib.util
import re
import shlex
import urllib.parse
from pathlib import Path

import pytest

from refmotion_plugin.engine import cli
from refmotion_plugin.engine.cli.commands import run_command
from refmotion_plugin.engine.options import job_spec

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md"] + sorted((ROOT / "docs").glob("*.md"))
LARGEST_IMAGE_BYTES = 300000
OTHER_PROGRAMS = {"--devel", "--nogui", "--noschedule", "--index-url", "--nthreads", "--memory-limit", "--preload", "--gres", "--job-name", "--partition",
                  "--cpus-per-task", "--time", "--output", "--remove_duplicates"}        # scipion3, pip, dask, SLURM, RELION
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


def text_of(path):
    return path.read_text(encoding="utf-8")


def commands(text):
    """Argument lists of every refmotion command: indented blocks with continued lines, and code in running text."""
    joined = re.sub(r"\\\n\s*", " ", text)
    blocks = re.findall(r"^    refmotion (.+)$", joined, re.MULTILINE)
    inline = [line for line in re.findall(r"`refmotion ([^`]+)`", text) if " " in line and "--help" not in line]
    return [shlex.split(line) for line in blocks + inline]


def options_in(text):
    """Every --option written as code."""
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(re.findall(r"`[^`\n]+`|^    .+$", text, re.MULTILINE))))


def known_options():
    """All options of refmotion and its commands."""
    parser = cli.command_parser(["simulate"])
    inner = next(a for a in parser._actions if isinstance(a.choices, dict)).choices.values()
    return {name for sub in list(inner) + [parser] for action in sub._actions for name in action.option_strings}


def anchors(text):
    """Anchors of a page's headings, as they are made from them on the web."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_generated_pages_are_up_to_date():
    """If this fails: python docs/make_parameters.py"""
    spec = importlib.util.spec_from_file_location("make_parameters", str(ROOT / "docs" / "make_parameters.py"))
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    stale = [path.name for path, text in maker.pages().items() if text_of(path) != text]
    assert stale == [], "run python docs/make_parameters.py"


@page
def test_every_command_parses(path):
    for arguments in commands(text_of(path)):
        values = vars(cli.command_parser(arguments).parse_args(arguments))
        if values.pop("command") is run_command and "inputs.movies" in values:
            job_spec({k: v for k, v in values.items() if k not in ("out", "job", "stage")})


def test_commands_are_found_at_all():
    found = commands(text_of(ROOT / "README.md"))
    assert any("--movies" in arguments and "--mask" in arguments for arguments in found) and ["simulate", "SIM"] in found


@page
def test_every_option_exists(path):
    benchmarks = "".join(text_of(p) for p in (ROOT / "benchmarks").glob("*.py"))
    unknown = options_in(text_of(path)) - known_options() - OTHER_PROGRAMS
    assert [name for name in sorted(unknown) if '"%s"' % name not in benchmarks] == []


def test_readme_options_are_valid_together_with_a_job():
    """The table of wishes: each option line is accepted by the specs, not only by the parser."""
    least = "run OUT --movies m.star --particles p.star --half1 a.mrc --half2 b.mrc".split()
    table = text_of(ROOT / "README.md").split("| you want | you add |")[1].split("\n\n")[0]
    wishes = [shlex.split(code) for code in re.findall(r"`(--[^`]+)`", table)]
    assert len(wishes) > 20
    for wish in wishes:
        values = vars(cli.command_parser(["run"]).parse_args(least + wish))
        assert values.pop("command") is run_command
        job_spec({k: v for k, v in values.items() if k not in ("out", "job", "stage")})


@page
def test_links_resolve(path):
    for target in LINK.findall(text_of(path)):
        if urllib.parse.urlparse(target).scheme:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), "%s links to %s" % (path.name, target)
        assert not anchor or anchor in anchors(text_of(file)), "%s links to %s" % (path.name, target)


@page
def test_named_tests_and_scripts_exist(path):
    tests = "".join(text_of(p) for p in (ROOT / "tests").rglob("test_*.py"))
    missing = [name for name in re.findall(r"`(test_\w+)`", text_of(path)) if "def %s(" % name not in tests]
    files = re.findall(r"(?:benchmarks|docs|refmotion_plugin|tests)/[\w/]+\.py", text_of(path))
    assert missing == [] and [f for f in files if not (ROOT / f).is_file()] == []


def test_make_targets_and_variables_exist():
    makefile, readme = text_of(ROOT / "Makefile"), text_of(ROOT / "README.md")
    targets = set(re.findall(r"(?:^    |`)make (\w+)", readme, re.MULTILINE))
    assert {"demo", "test", "install"} <= targets
    assert [t for t in sorted(targets) if not re.search(r"^%s:" % t, makefile, re.MULTILINE)] == []
    variables = re.findall(r"^\| `([A-Z_]+)=", readme, re.MULTILINE)
    assert variables and [v for v in variables if not re.search(r"^%s\s*\?=" % v, makefile, re.MULTILINE)] == []


def test_exit_codes_are_the_programs():
    codes = (cli.EXIT_FINE, cli.EXIT_BUG, cli.EXIT_INPUT, cli.EXIT_FAILED_MOVIES, cli.EXIT_STOPPED)
    table = text_of(ROOT / "README.md").split("| exit code |")[1]
    assert tuple(int(c) for c in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)[:5]) == codes


def test_images_are_small_and_shown():
    shown = {Path(target).name for path in PAGES for target in LINK.findall(text_of(path)) if target.endswith(".png")}
    images = list((ROOT / "docs" / "images").glob("*.png"))
    assert [p.name for p in images if p.stat().st_size > LARGEST_IMAGE_BYTES] == []
    assert sorted({p.name for p in images} - shown) == []
