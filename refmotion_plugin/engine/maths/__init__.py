"""Tensor mathematics that knows no cryo-EM."""
