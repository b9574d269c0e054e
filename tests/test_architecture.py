"""The walls of the house: who may import whom, what the host's process must not see, what the oldest Python must read."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "refmotion_plugin"
MAPPED = ("protocols", "viewers", "templates", "tests")
HOST = ("pwem", "pyworkflow")
ENGINE_SIBLINGS = ("movies", "optics", "motion", "dose")
ENGINE_GROUND = ("maths", "search")


def module_name(path):
    """Dotted name of a file as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = (("refmotion_plugin",) + parts) if parts[0] in MAPPED else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """Absolute dotted names that a file imports, wherever in the file."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[:len(package.split(".")) - node.level + 1]
                base = ".".join(above + ([node.module] if node.module else []))
            yield from ("%s.%s" % (base, alias.name) for alias in node.names)


def files_below(*folders):
    """Python files of folders or single files, relative to the root."""
    for folder in folders:
        path = ROOT / folder
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def violations(files, forbidden):
    """``file -> import`` of every import that begins with a forbidden name."""
    return ["%s -> %s" % (path.relative_to(ROOT), name) for path in files for name in imports_of(path)
            if any(name == f or name.startswith(f + ".") for f in forbidden)]


def own(*names):
    return tuple("refmotion_plugin." + name for name in names)


HOST_FILES = ("protocols", "viewers", "refmotion_plugin/convert", "refmotion_plugin/objects.py", "refmotion_plugin/scipion_plugin.py",
              "refmotion_plugin/headless.py", "refmotion_plugin/__init__.py", "refmotion_plugin/bibtex.py", "refmotion_plugin/figures",
              "refmotion_plugin/workflow_templates.py",
              "refmotion_plugin/wizards.py", "refmotion_plugin/suggestion_dialog.py", "refmotion_plugin/machine.py")


def test_the_contract_knows_neither_engine_nor_host():
    upward = own("engine", "protocols", "viewers", "convert", "objects", "scipion_plugin", "headless", "figures")
    assert violations(files_below("refmotion_plugin/contract"), HOST + ("torch", "matplotlib") + upward) == []


def test_the_engine_knows_nothing_of_the_host():
    host_side = own("protocols", "viewers", "convert", "objects", "scipion_plugin", "headless")
    assert violations(files_below("refmotion_plugin/engine"), HOST + host_side + ("protocols", "viewers")) == []


def test_the_host_starts_the_engine_as_a_process_and_never_imports_torch():
    assert violations(files_below(*HOST_FILES), ("torch",) + own("engine")) == []


def test_files_are_known_to_convert_alone():
    """Protocols and viewers read no STAR, NPZ or MRC and do no arithmetic on arrays."""
    forbidden = own("contract.star", "contract.startable", "contract.star_movies", "contract.star_particles") + ("numpy", "mrcfile", "emtable")
    assert violations(files_below("protocols", "viewers"), forbidden) == []


def test_figures_know_the_contract_alone():
    assert violations(files_below("refmotion_plugin/figures"), HOST + own("engine", "protocols", "viewers", "convert", "objects", "scipion_plugin")) == []


@pytest.mark.parametrize("part", ENGINE_SIBLINGS)
def test_siblings_in_the_engine_meet_only_in_stages(part):
    others = [p for p in ENGINE_SIBLINGS if p != part] + ["stages", "run", "cli", "report", "simulate"]
    assert violations(files_below("refmotion_plugin/engine/" + part), own(*["engine." + o for o in others])) == []


@pytest.mark.parametrize("part", ENGINE_GROUND)
def test_the_engines_ground_floor_stands_alone(part):
    above = ENGINE_SIBLINGS + ("stages", "run", "cli", "report", "simulate")
    assert violations(files_below("refmotion_plugin/engine/" + part), own("contract", *["engine." + o for o in above])) == []


def test_stages_do_not_know_who_runs_them():
    assert violations(files_below("refmotion_plugin/engine/stages"), own("engine.run", "engine.cli", "engine.report", "engine.simulate")) == []


def test_the_simulator_shares_no_arithmetic_with_the_engine():
    others = [p.stem for p in (PACKAGE / "engine").iterdir() if p.stem not in ("simulate", "__init__", "__pycache__")]
    assert violations(files_below("refmotion_plugin/engine/simulate"), ("torch",) + own(*["engine." + o for o in others])) == []


@pytest.mark.parametrize("path", list(files_below("refmotion_plugin/contract", *HOST_FILES)) + [PACKAGE / "start_engine.py"],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_host_side_is_python_3_8(path):
    assert ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8)).body or path.name == "__init__.py"


def run_python(code):
    """Run code in a fresh interpreter without the tests' settings; returns its output."""
    return subprocess.run([sys.executable, "-c", code], cwd=str(ROOT), capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_imports_neither_scipion_nor_torch():
    code = "import sys, refmotion_plugin, refmotion_plugin.contract.results\nprint(*[m for m in ('torch', 'pwem', 'pyworkflow') if m in sys.modules])"
    assert run_python(code) == []


def test_discovery_by_the_host_does_not_import_torch():
    pytest.importorskip("pwem")
    code = ("import sys, refmotion_plugin.protocols, refmotion_plugin.viewers, refmotion_plugin.objects, refmotion_plugin.convert\n"
            "print(refmotion_plugin.Plugin.__module__, 'torch' in sys.modules)")
    assert run_python(code)[-2:] == ["refmotion_plugin", "False"]


def test_an_engine_environment_needs_no_scipion(tmp_path):
    """The launcher makes the package importable by itself: no site-packages of the host, no Scipion."""
    (tmp_path / "pwem.py").write_text("raise RuntimeError('the engine imported the host')\n")
    (tmp_path / "pyworkflow.py").write_text("raise RuntimeError('the engine imported the host')\n")
    done = subprocess.run([sys.executable, str(PACKAGE / "start_engine.py"), "run", "--help"], cwd=str(tmp_path), capture_output=True,
                          text=True, env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0 and "--stage" in done.stdout, done.stderr


def test_every_imported_distribution_is_required():
    """What setup.py asks for is what is used, and nothing is used that it does not ask for."""
    if not hasattr(sys, "stdlib_module_names"):
        pytest.skip("this Python does not know the names of its standard library")
    names = {"pwem": "scipion-em", "pyworkflow": "scipion-pyworkflow", "dask": "distributed", "dask_jobqueue": "dask-jobqueue",
             "mpl_toolkits": "matplotlib"}
    options = {node.arg: node.value for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
               if isinstance(node, ast.keyword)}
    required = {re.split("[<>=]", ast.literal_eval(item))[0] for item in options["install_requires"].elts}
    optional = set(ast.literal_eval(options["extras_require"])["cluster"])
    used = {name.split(".")[0] for path in files_below("refmotion_plugin", "protocols", "viewers") for name in imports_of(path)}
    used = {names.get(name, name) for name in used - set(sys.stdlib_module_names) - {"refmotion_plugin"}}
    assert used == required | optional
