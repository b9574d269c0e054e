"""Runs the engine of *this* copy of the package in whatever interpreter reads this file.

``python start_engine.py run OUT …`` equals ``python -m refmotion_plugin.engine run OUT …``, but the package need not be
installed there and nothing else of the host's environment becomes importable: an engine environment has its own versions.
"""
import importlib
import importlib.util
import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))
_NAME = os.path.basename(_FOLDER)


def register_package():
    """Make this folder importable under its name, without its parent's other contents."""
    spec = importlib.util.spec_from_file_location(_NAME, os.path.join(_FOLDER, "__init__.py"), submodule_search_locations=[_FOLDER])
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)


if __name__ in ("__main__", "__mp_main__"):     # the second: worker processes started by the engine
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != _FOLDER]
    register_package()
if __name__ == "__main__":          # this file stays the main module: worker processes begin with it, and find the package by it
    importlib.import_module(_NAME + ".engine.__main__").command()
