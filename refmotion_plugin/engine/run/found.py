"""What earlier runs left: markers and the result files they speak of."""
from refmotion_plugin.contract.layout import read_object
from refmotion_plugin.contract.markers import polished_parts


def found_on_disk(layout, keys, stage, n_references):
    """{movie key: fingerprint} of those movies of ``keys`` whose marker of ``stage`` makes sense and whose result files are there."""
    found = {}
    for key in keys:
        mark = read_object(layout.done(key, stage)).get("fingerprint")
        if isinstance(mark, str) and _results_are_there(layout, key, stage, n_references):
            found[key] = mark
    return found


def _results_are_there(layout, key, stage, n_references):
    if stage == "align":
        return layout.trajectories(key).exists() and layout.fcc(key).exists()
    parts = polished_parts(layout, key, n_references)
    return parts is not None and all(layout.polished(key, p["reference"], n_references).exists() for p in parts if p["rows"])
