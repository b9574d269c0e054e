"""A private Scipion for the tests: its variables must be set before pyworkflow is imported anywhere."""
import os
import tempfile

from refmotion_plugin.headless import prepare_environment

os.environ.setdefault("MPLBACKEND", "Agg")
prepare_environment(os.environ.get("REFMOTION_TEST_DIR") or tempfile.mkdtemp(prefix="refmotion_tests_"))
