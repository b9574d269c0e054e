"""Errors that say that memory has run out: Python's own, and those of the system and of libraries, by their words."""

WORDS = ("allocate memory", "unable to allocate", "out of memory", "failed to map segment", "can't start new thread",
         "alloc_failed")      # of cuFFT, cuBLAS and cuSOLVER


def memory_ran_out(error):
    """Whether an exception says so."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in WORDS)
