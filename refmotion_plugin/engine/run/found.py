"""What earlier runs left: markers and the result files they speak of."""
from refmotion_plugin.contract.layout import read_object
from refmotion_plugin.contract.markers import polished_parts


def found_on_disk(layout, keys, stage, n_references, along_input=False):
    """{movie key: fingerprint} of those movies of ``keys`` whose marker of ``stage`` makes sense and whose result files are there.

    ``along_input``: the images made along the input motion are wanted too.
    """
    found = {}
    for key in keys:
        mark = read_object(layout.done(key, stage)).get("fingerprint")
        if isinstance(mark, str) and _results_are_there(layout, key, stage, n_references, along_input):
            found[key] = mark
    return found


def _results_are_there(layout, key, stage, n_references, along_input):
    if stage == "align":
        return layout.trajectories(key).exists() and layout.fcc(key).exists()
    parts = polished_parts(layout, key, n_references)
    wanted = (layout.polished, layout.along_input) if along_input else (layout.polished,)
    return parts is not None and all(path(key, p["reference"], n_references).exists() for p in parts if p["rows"] for path in wanted)
