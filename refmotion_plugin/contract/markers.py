"""What the done markers of a movie's stages note besides the fingerprint, believed only if it is whole."""
import math

from .layout import read_object


def polished_parts(layout, key, n_references):
    """What polishing a movie wrote: a dict per reference (reference, rows, pixel_angstrom, box_px, rejected); None if the marker is
    absent or damaged."""
    parts = read_object(layout.done(key, "polish")).get("references")
    if isinstance(parts, list) and all(_is_part(part, n_references) for part in parts):
        return parts
    return None


def _is_part(part, n_references):
    try:
        return (part["reference"] in range(n_references) and all(type(row) is int and row >= 0 for row in part["rows"])
                and math.isfinite(part["pixel_angstrom"]) and part["pixel_angstrom"] > 0 and type(part["box_px"]) is int
                and all(type(row) is int and row >= 0 and isinstance(reason, str) for row, reason in part["rejected"]))
    except (TypeError, ValueError, KeyError):
        return False
