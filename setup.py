"""Packaging: the top-level folders protocols, viewers, tests and templates become sub-packages of refmotion_plugin."""
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
PACKAGE = "refmotion_plugin"
MAPPED = ("protocols", "viewers", "templates", "tests")


def version():
    text = (ROOT / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def packages():
    inner = [PACKAGE] + ["%s.%s" % (PACKAGE, name) for name in find_packages(str(ROOT / PACKAGE))]
    mapped = ["%s.%s" % (PACKAGE, name) for name in find_packages(str(ROOT), include=[m + s for m in MAPPED for s in ("", ".*")])]
    return inner + mapped


setup(
    name=PACKAGE,
    version=version(),
    description="Reference-based motion correction of cryo-EM movies for Scipion, with a PyTorch engine",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    keywords="scipion cryoem imageprocessing scipion-3.0",
    python_requires=">=3.8",
    packages=packages(),
    package_dir=dict([(PACKAGE, PACKAGE)] + [("%s.%s" % (PACKAGE, name), name) for name in MAPPED]),
    package_data={PACKAGE: ["protocols.conf", "icon.png"], PACKAGE + ".templates": ["*.json.template"]},
    entry_points={
        "pyworkflow.plugin": ["refmotion_plugin = refmotion_plugin"],
        "console_scripts": ["refmotion = refmotion_plugin.engine.__main__:command"],
    },
    install_requires=[
        "scipion-pyworkflow",
        "scipion-em",
        "numpy",
        "torch>=2.1",
        "mrcfile",
        "emtable",
        "pydantic>=2",
        "scipy",
        "tifffile",
        "imagecodecs<2026.2",           # later ones ask for numpy 2, Scipion pins numpy 1.26
        "matplotlib",
        "jinja2",
        "rich",
    ],
    extras_require={
        "gpus": ["distributed"],        # worker processes, one per GPU
        "cluster": ["distributed", "dask-jobqueue"],            # worker processes as SLURM jobs
        "test": ["pytest", "hypothesis", "setuptools", "wheel", "distributed", "dask-jobqueue", "vermin"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: GNU General Public License v3 or later (GPLv3+)",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering",
    ],
)
