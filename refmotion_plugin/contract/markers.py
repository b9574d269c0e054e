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


def averaged_notes(layout, key, kinds):
    """What averaging a movie wrote: a dict (fingerprint, pixel_angstrom, size_yx, ``kinds`` of micrographs, which are some of those given);
    None if the marker is absent or damaged."""
    notes = read_object(layout.done(key, "average"))
    return notes if _is_averaged(notes, kinds) else None


def _is_averaged(notes, kinds):
    try:
        return (isinstance(notes["kinds"], list) and "weighted" in notes["kinds"] and set(notes["kinds"]) <= set(kinds)
                and isinstance(notes["fingerprint"], str)
                and math.isfinite(notes["pixel_angstrom"]) and notes["pixel_angstrom"] > 0
                and len(notes["size_yx"]) == 2 and all(type(n) is int and n > 0 for n in notes["size_yx"]))
    except (TypeError, KeyError, OverflowError):
        return False


def _is_part(part, n_references):
    try:
        return (part["reference"] in range(n_references) and all(type(row) is int and row >= 0 for row in part["rows"])
                and math.isfinite(part["pixel_angstrom"]) and part["pixel_angstrom"] > 0 and type(part["box_px"]) is int
                and all(type(row) is int and row >= 0 and isinstance(reason, str) for row, reason in part["rejected"]))
    except (TypeError, ValueError, KeyError):
        return False
