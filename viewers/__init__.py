"""Scipion windows over figures made from the engine's results."""
