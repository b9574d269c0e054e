"""What Scipion asks of a plugin: variables, the interpreter of the engine, and how its own environment is built."""
import importlib.util
import os
import sys

import pwem
from pyworkflow import SCIPION_JSON_TEMPLATES, VarTypes
from pyworkflow.utils import Environ

import refmotion_plugin

from .workflow_templates import RepeatingTemplate

ENGINE_PYTHON_VAR = "REFMOTION_PYTHON"
ENGINE_HOME_VAR = "REFMOTION_HOME"
TORCH_VAR = "REFMOTION_TORCH"
ENGINE_VERSION = refmotion_plugin.__version__
_ENVIRONMENT, _FLAG = "engine_env", "engine_installed"

_NEW_ENOUGH = "import sys, ensurepip; sys.exit(sys.version_info < (3, 10))"
_CHOOSE_PYTHON = ("for PYTHON in %s ''; do \"$PYTHON\" -c '" + _NEW_ENOUGH + "' 2>/dev/null && break; done; [ -n \"$PYTHON\" ] || { echo 'No Python "
                  "3.10 or later with ensurepip was found: put one on the PATH, or set REFMOTION_PYTHON to one that has PyTorch.' >&2; false; }")
"""Shell commands that leave the first suitable one of some interpreters in $PYTHON, or fail with a sentence."""


def _environment_of(python):
    """What tells one Python environment from another: a venv's interpreter is a link to that of its base, but lies in a folder of its own."""
    return os.path.realpath(os.path.dirname(python)), os.path.realpath(python)


class Plugin(pwem.Plugin):
    """Reference-based motion correction; the engine runs in a process of its own, never in the host's."""

    _url = ""
    _homeVar = ENGINE_HOME_VAR
    _supportedVersions = [ENGINE_VERSION]
    _processingField = ["SPA"]

    @classmethod
    def _defineVariables(cls):
        cls._defineEmVar(ENGINE_HOME_VAR, "refmotion-%s" % ENGINE_VERSION, var_type=VarTypes.FOLDER,
                         description="Folder of the engine environment that 'scipion3 installb refmotion' builds.")
        cls._defineVar(ENGINE_PYTHON_VAR, "", var_type=VarTypes.PATH,
                       description="Python interpreter (3.10 or later, with PyTorch) that runs the engine. Empty: the "
                                   "environment in %s if it was built, otherwise Scipion's own Python." % ENGINE_HOME_VAR)
        cls._defineVar(TORCH_VAR, "torch", var_type=VarTypes.STRING,
                       description="What pip installs as PyTorch in the engine environment, options included.")

    @classmethod
    def getEnginePython(cls):
        """Path of the interpreter that runs the engine."""
        configured = cls.getVar(ENGINE_PYTHON_VAR)
        if configured:
            return os.path.expanduser(configured)
        own = cls.getHome(_ENVIRONMENT, "bin", "python")
        return own if own and os.path.exists(own) else sys.executable

    @classmethod
    def getEngineProgram(cls):
        """Command that starts the engine of this copy of the plugin, quoted for a shell."""
        script = os.path.join(os.path.dirname(os.path.abspath(refmotion_plugin.__file__)), "start_engine.py")
        return '"%s" "%s"' % (cls.getEnginePython(), script)

    @classmethod
    def getEnviron(cls):
        """Environment of the engine's process: the host's, without its Python paths if the interpreter is another one."""
        environ = Environ(os.environ)
        if _environment_of(cls.getEnginePython()) != _environment_of(sys.executable):
            for name in ("PYTHONPATH", "PYTHONHOME"):
                environ.pop(name, None)
        environ["PYTHONUNBUFFERED"] = "1"       # lines reach the run's log when they are written
        return environ

    @classmethod
    def validateInstallation(cls):
        """Sentences that say why the engine cannot start; empty if it can."""
        python = cls.getEnginePython()
        if not os.access(python, os.X_OK):
            return ["%s is %s, which is not an executable file: give a Python interpreter with PyTorch, or leave it empty."
                    % (ENGINE_PYTHON_VAR, python)]
        if python == sys.executable and importlib.util.find_spec("torch") is None:
            return ["PyTorch is not installed in Scipion's Python: run 'scipion3 installb refmotion', or set %s to an "
                    "interpreter that has it." % ENGINE_PYTHON_VAR]
        return []

    @classmethod
    def defineBinaries(cls, env):
        """An environment for the engine alone, for hosts whose Python is too old or whose packages shall stay untouched."""
        requirements = cls._engineRequirements()
        pip = "./%s/bin/python -m pip install" % _ENVIRONMENT
        command = " && ".join([
            _CHOOSE_PYTHON % " ".join(cls._pythons()),
            '"$PYTHON" -m venv %s' % _ENVIRONMENT,
            "%s --upgrade pip" % pip,
            "%s %s" % (pip, cls.getVar(TORCH_VAR, "torch")),
            "%s %s" % (pip, " ".join("'%s'" % r for r in requirements)),
            "touch %s" % _FLAG])
        env.addPackage("refmotion", version=ENGINE_VERSION, tar="void.tgz", commands=[(command, _FLAG)], default=False,
                       vars={"PATH": os.environ.get("PATH", "")})

    @staticmethod
    def _pythons():
        """Interpreters that the engine's environment may be made of, quoted for a shell; the first that is new enough is taken."""
        own = ["'%s'" % sys.executable] if sys.version_info >= (3, 10) else []
        return own + ["python3.13", "python3.12", "python3.11", "python3.10", "python3"]

    @staticmethod
    def _engineRequirements():
        """What this plugin's own metadata names, for several GPUs and clusters too, less Scipion and torch (installed before)."""
        from importlib import metadata
        try:
            named = metadata.requires("refmotion_plugin") or []
        except metadata.PackageNotFoundError:      # a bare source tree: nothing says what the engine needs
            named = []
        wanted = [r for r in named if ";" not in r or any(extra in r.split(";")[1] for extra in ("gpus", "cluster"))]
        return list(dict.fromkeys(r.split(";")[0].strip() for r in wanted if not r.startswith(("scipion", "torch"))))

    def getPluginTemplateDir(self):
        """The templates inside the package when installed, beside it in a source tree."""
        inside = os.path.join(self.getPath(), "templates")
        return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(self.getPath()), "templates")

    def getTemplates(self):
        """The plugin's workflow templates."""
        folder = self.getPluginTemplateDir()
        return [RepeatingTemplate(self.getName(), os.path.join(folder, name)) for name in sorted(os.listdir(folder))
                if name.endswith(SCIPION_JSON_TEMPLATES)]


Plugin.__module__ = refmotion_plugin.__name__      # the host derives the plugin's name and path from it
