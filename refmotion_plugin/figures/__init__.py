"""Figures of a job, made from its results; the report and the host's viewers draw the same ones.

Each function takes arrays or records and returns a new matplotlib Figure that remembers the numbers behind it; pyplot is not touched.
"""
