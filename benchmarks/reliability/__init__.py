"""Parts of ``benchmarks/faults.py`` and ``benchmarks/scaling.py``: kills, surroundings that fail, damaged files, scaling."""
