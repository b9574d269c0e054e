"""A private Scipion for the tests: its variables must be set before pyworkflow is imported anywhere."""
import os
import sys
import tempfile

SCRATCH = os.environ.get("REFMOTION_TEST_DIR") or tempfile.mkdtemp(prefix="refmotion_tests_")
for name, value in {
        "SCIPION_DOMAIN": "pwem", "SCIPION_HOME": os.path.join(SCRATCH, "home"), "SCIPION_USER_DATA": os.path.join(SCRATCH, "user"),
        "SCIPION_PYTHON": sys.executable, "SCIPION_NOTIFY": "False", "SCIPION_TEST_NOSYNC": "True", "MPLBACKEND": "Agg"}.items():
    os.environ.setdefault(name, value)
for name in ("SCIPION_HOME", "SCIPION_USER_DATA"):
    os.makedirs(os.environ[name], exist_ok=True)
