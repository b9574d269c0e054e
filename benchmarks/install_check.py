"""The plugin in a fresh environment with Scipion's own commands, as a user installs it.

    python benchmarks/install_check.py OUT [--torch "torch==2.13.0"] [--wheel] [--keep]

Makes OUT/env, installs PyTorch and scipion-app from the package index, then runs installp, protocols, inspect, config, template (first only
making the project, then scheduled to its end on simulated movies), tests and uninstallp; with --wheel a wheel is installed and looked at
too. Prints a line per check and ends with 1 if one failed. Needs a network; takes some minutes.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "refmotion_plugin"
OURS = ("ProtAverageMovies", "ProtExportMotionResults", "ProtImportDoseWeights", "ProtImportHyperparameters", "ProtImportRelionMovies",
        "ProtReferenceMotionCorrection")
TEMPLATE, PIXEL = "refmotion_plugin-reference_motion_correction", 1.1
STATES = """
import sys
from pyworkflow import Config
from pyworkflow.project import Project
Config.setDomain("pwem")
Config.getDomain().getProtocols()
project = Project(Config.getDomain(), sys.argv[1])
project.load()
for run in project.getRuns(checkPids=True):
    print("RUN", run.getClassName(), run.getStatus(), *[name for name, _ in run.iterOutputAttributes()])
    if run.isFailed():
        print(run.getErrorMessage())
"""


class Check:
    """A fresh environment and what was tried in it."""

    def __init__(self, out):
        self.out, self.results = out, []
        self.python = out / "env" / "bin" / "python"
        self.source = out / NAME                    # installp takes the folder's name for the package's
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SCIPION", "REFMOTION", "PYTHON"))}
        self.environ = dict(clean, SCIPION_HOME=str(out / "home"), SCIPION_USER_DATA=str(out / "user"), SCIPION_PYTHON=str(self.python),
                            SCIPION_DOMAIN="pwem", SCIPION_NOTIFY="False", SCIPION_TEST_NOSYNC="True",
                            PATH="%s:%s" % (self.python.parent, os.environ["PATH"]))
        for name in ("home", "user", "elsewhere"):      # where the checkout lies Python would take its folder for the package
            (out / name).mkdir(parents=True, exist_ok=True)

    def run(self, *command):
        """(exit code, output) of a command in the environment."""
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=str(self.out / "elsewhere"),
                              env=self.environ)
        with open(self.out / "log.txt", "a", encoding="utf-8") as log:
            log.write("$ %s\n%s\n" % (" ".join(map(str, command)), done.stdout))
        return done.returncode, done.stdout

    def scipion(self, *arguments):
        """A command of Scipion; as a module, since its script may lack an import in a bare environment."""
        return self.run(self.python, "-m", "scipion", *arguments)

    def tell(self, name, good, text=""):
        """Note and print one result."""
        self.results.append(bool(good))
        print("%-62s %s" % (name, "ok" if good else "FAILED\n" + text[-3000:]), flush=True)
        return good


def prepare(check, torch):
    """Environment, PyTorch, Scipion (unless they are kept), a copy of the sources."""
    kept = check.python.exists()
    if kept:
        check.run(check.python, "-m", "pip", "uninstall", "--yes", NAME)
    else:
        venv.create(check.out / "env", with_pip=True)
    ignored = shutil.ignore_patterns(".git", ".venv*", "__pycache__", "build", "*.egg-info", "demo_output", "*.pyc")
    shutil.copytree(ROOT, check.source, ignore=ignored)
    for wanted in () if kept else (torch, "scipion-app"):
        code, text = check.run(check.python, "-m", "pip", "install", *wanted.split())
        if not check.tell("pip install %s" % wanted, code == 0, text):
            return False
    code, text = check.scipion("config", "--overwrite", "--unattended")
    return check.tell("scipion config", code == 0, text)


def listed(check, where):
    """Our protocols are in Scipion's list."""
    code, text = check.scipion("protocols")
    missing = [name for name in OURS if name not in text]
    check.tell("scipion protocols, %s" % where, code == 0 and not missing, "missing: %s\n%s" % (missing, text))


def commands(check):
    """Scipion's commands on the installed plugin."""
    code, text = check.scipion("installp", "-p", check.source, "--devel")
    if not check.tell("scipion installp -p PATH --devel", code == 0 and "Successfully installed" in text, text):
        return
    listed(check, "editable")
    code, text = check.scipion("inspect", NAME)
    check.tell("scipion inspect", code == 0 and NAME in text, text)
    code, text = check.scipion("config", "-p", NAME)
    check.tell("scipion config -p", code == 0 and "REFMOTION_PYTHON" in text and "REFMOTION_TORCH" in text, text)
    templates(check)
    code, text = check.scipion("tests", "refmotion_plugin.tests.test_workflow.TestReferenceMotionCorrection")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    check.tell("scipion tests", code == 0 and "[  PASSED  ] 1 tests" in plain, text)
    code, text = check.scipion("uninstallp", "-p", NAME)
    gone = "ProtReferenceMotionCorrection" not in check.scipion("protocols")[1]
    check.tell("scipion uninstallp", code == 0 and gone, text)


def templates(check):
    """The self-contained template, made and then scheduled to its end."""
    data = check.out / "data"
    code, text = check.run(check.python.parent / "refmotion", "simulate", data, "--movies", "2", "--particles", "14", "--frames", "10",
                           "--size-yx", "512", "512", "--box", "96", "--dose-per-frame", "2.4", "--contrast-scale", "2", "--seed", "3")
    if not check.tell("refmotion simulate", code == 0, text):
        return
    values = ["project=%s" % data, "movies=%s" % (data / "MotionCorr" / "corrected_micrographs.star"),
              "particles=%s" % (data / "particles.star"), "half1=%s" % (data / "half1.mrc"), "half2=%s" % (data / "half2.mrc"),
              "mask=%s" % (data / "mask.mrc"), "pixel=%s" % PIXEL, "usegpu=false", "gpus=0", "threads=1", "binning=1.0"]
    code, text = check.scipion("template", TEMPLATE, "--nogui", "--noschedule", "project_name=made", *values)
    check.tell("scipion template --nogui --noschedule", code == 0 and states(check, "made").count("saved") == 5, text)
    code, text = check.scipion("template", TEMPLATE, "--nogui", "project_name=scheduled", *values)
    end = time.monotonic() + 900
    while "finished" not in (found := states(check, "scheduled")) or found.count("finished") < 5:
        if time.monotonic() > end or "failed" in found or "aborted" in found:
            break
        time.sleep(5)
    check.tell("scipion template, scheduled, to its end", found.count("finished") == 5 and "outputMicrographsDoseWeighted" in found, text + found)


def states(check, project):
    """Lines ``RUN class state outputs`` of a project."""
    return check.run(check.python, "-c", STATES, check.out / "user" / "projects" / project)[1]


def wheel(check):
    """A wheel, installed without the sources."""
    code, text = check.run(check.python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", check.out / "wheel", check.source)
    built = list((check.out / "wheel").glob("*.whl"))
    if check.tell("pip wheel", code == 0 and len(built) == 1, text):
        code, text = check.run(check.python, "-m", "pip", "install", built[0])
        check.tell("pip install WHEEL", code == 0, text)
        listed(check, "wheel")


def main():
    """Run every check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", help="folder to work in, outside the checkout; what is in it is deleted")
    parser.add_argument("--torch", default="torch", help="what pip installs as PyTorch, options included")
    parser.add_argument("--wheel", action="store_true", help="a wheel too")
    parser.add_argument("--keep", action="store_true", help="take the environment that an earlier check left in OUT")
    options = parser.parse_args()
    out = Path(options.out).resolve()
    if out == ROOT or ROOT in out.parents or out in ROOT.parents:
        parser.error("OUT must lie beside %s: the checkout is copied to it, and what is in OUT is deleted" % ROOT)
    for path in out.glob("*") if out.exists() else ():
        if not (options.keep and path.name == "env"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    check = Check(out)
    if prepare(check, options.torch):
        commands(check)
        if options.wheel:
            wheel(check)
    print("%d of %d checks passed; everything that was printed is in %s" % (sum(check.results), len(check.results), out / "log.txt"))
    return 0 if all(check.results) else 1


if __name__ == "__main__":
    sys.exit(main())
