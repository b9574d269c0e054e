"""Errors a user can cause. Each message is one sentence: what was read, from where, what was expected, what to do."""


class InputError(ValueError):
    """The job cannot run with what was given; the message names the cause and the remedy."""


class MovieError(ValueError):
    """One movie cannot be processed; the job lists it with this reason and goes on."""
