"""A private Scipion for the tests: its variables must be set before pyworkflow is imported anywhere."""
import atexit
import os
import shutil
import tempfile

from refmotion_plugin.headless import prepare_environment

os.environ.setdefault("MPLBACKEND", "Agg")
_folder = os.environ.get("REFMOTION_TEST_DIR")
if not _folder:
    _folder, _owner = tempfile.mkdtemp(prefix="refmotion_tests_"), os.getpid()
    atexit.register(lambda: os.getpid() == _owner and shutil.rmtree(_folder, ignore_errors=True))      # not at the end of a forked child
prepare_environment(_folder)
