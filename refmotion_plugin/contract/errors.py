"""Errors a user can cause. Each message is one sentence: what was read, from where, what was expected, what to do."""
import re

LONGEST_MESSAGE = 1000


class _Sentence(ValueError):
    """A message that is one line whatever stood in the file it speaks of: no line breaks, no orders to a terminal, no end of it."""

    def __init__(self, text=""):
        text = re.sub(r"[\x00-\x1f\x7f]+", " ", str(text))
        super().__init__(text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE // 2] + " … " + text[-LONGEST_MESSAGE // 2:])


class InputError(_Sentence):
    """The job cannot run with what was given; the message names the cause and the remedy."""


class MovieError(_Sentence):
    """One movie cannot be processed; the job lists it with this reason and goes on."""
