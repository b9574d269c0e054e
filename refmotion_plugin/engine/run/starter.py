"""A run ends with the program that started it and waits for it, however that ends: nobody would take its results, nor stop it."""
import logging
import os
import signal
import threading

from refmotion_plugin.contract.processes import STARTER_VARIABLE, lives

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


def watch_starter():
    """If the environment names a starter that lives on this machine, stop this process politely when it is gone.

    A starter elsewhere (a queue runs the engine on another node) or of another name space cannot be seen and is not watched.
    """
    starter = os.environ.get(STARTER_VARIABLE, "")
    if lives(starter):
        threading.Thread(target=_watch, args=(starter, threading.Event()), name="starter", daemon=True).start()


def _watch(starter, never):
    while lives(starter):
        never.wait(LOOK_SECONDS)
    log.warning("the program that started this run has ended: stopping")
    os.kill(os.getpid(), signal.SIGTERM)
