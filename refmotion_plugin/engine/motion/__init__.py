"""Estimation of motion: whitening, correlation maps, prior and fit."""
