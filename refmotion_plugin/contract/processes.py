"""Which process is meant: its host, number and start, since numbers are used again."""
import os
import socket

STARTER_VARIABLE = "REFMOTION_STARTED_BY"
"""Environment variable by which a program that waits for the engine says who it is: when it dies, the engine shall not go on alone."""


def start_of(process):
    """When a process of this machine started, in clock ticks since the machine did; None if there is none."""
    try:
        with open("/proc/%d/stat" % process) as file:
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])       # one that ended and was not waited for yet is none
    except (OSError, ValueError, IndexError, TypeError):
        return None


def own_name():
    """``host number start`` of this process."""
    return "%s %d %s" % (socket.gethostname(), os.getpid(), start_of(os.getpid()))


def lives(name):
    """Whether a process with the name that :func:`own_name` gave it runs on this machine."""
    host, number, start = (name.split(" ") + ["", "", ""])[:3]
    return host == socket.gethostname() and number.isdigit() and start.isdigit() and start_of(int(number)) == int(start)
