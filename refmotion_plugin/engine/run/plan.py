"""What is left to do: a pure function of what is wanted and what is found."""
OPEN, DONE, STALE, FAILED = "todo", "done", "stale", "failed"


def plan(wanted, found, failed=()):
    """State of each movie for one stage.

    Parameters: ``wanted`` {key: fingerprint}; ``found`` {key: fingerprint of the result on disk, absent if there is none};
    ``failed``: keys that cannot be done now. Returns {key: todo | done | stale | failed} in the order of ``wanted``.
    """
    states = {}
    for key, mark in wanted.items():
        if key in failed:
            states[key] = FAILED
        elif found.get(key) == mark:
            states[key] = DONE
        else:
            states[key] = STALE if found.get(key) else OPEN
    return states


def open_keys(states):
    """Keys that must be worked on."""
    return [key for key, state in states.items() if state in (OPEN, STALE)]
