"""Fourier cylinder correlation, empirical dose weights, weighted frame sums."""
