"""A run that was started by a program that waits for it ends with that program."""
import os
import signal
import socket
import subprocess
import sys

import pytest

from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.contract.processes import STARTER_VARIABLE, lives, own_name, start_of
from refmotion_plugin.engine.run.lock import holder

RUN = """
import sys, time
from refmotion_plugin.contract.layout import JobLayout
from refmotion_plugin.engine.cli import main, parser
from refmotion_plugin.engine.run.lock import job_lock

def command(values):
    with job_lock(JobLayout(sys.argv[1])):
        print("working", flush=True)
        time.sleep(float(sys.argv[2]))
    return 0

parser.run_command = command
sys.exit(main(["run", sys.argv[1]]))
"""


def begun(folder, starter, seconds):
    """A run that holds the job's folder and works for some time."""
    run = subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           env=dict(os.environ, **{STARTER_VARIABLE: starter}))
    assert run.stdout.readline() == "working\n", run.stderr.read()
    return run


def name_of(process):
    return "%s %d %s" % (socket.gethostname(), process.pid, start_of(process.pid))


def test_a_run_stops_politely_when_its_starter_is_killed(tmp_path):
    starter = subprocess.Popen(["sleep", "100"])
    run = begun(tmp_path, name_of(starter), 100)
    os.kill(starter.pid, signal.SIGKILL)        # not waited for: it stays in the system's table, as under a program that is busy
    assert run.wait(timeout=20) == 130
    assert "the same command goes on" in run.stderr.read() and holder(JobLayout(tmp_path)) == {}
    starter.wait()


@pytest.mark.parametrize("starter", ["", "another 1 1", "%s 1 7" % socket.gethostname(), "nonsense", own_name()])
def test_starters_that_live_or_cannot_be_seen_stop_nothing(tmp_path, starter):
    assert begun(tmp_path, starter, 2).wait(timeout=20) == 0
    assert lives(starter) == (starter == own_name())
