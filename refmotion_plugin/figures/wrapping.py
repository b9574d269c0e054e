"""Words that are not ours: broken into lines where the window is narrow, and never taken for mathematics."""
import contextlib

from matplotlib.text import Text


def wrapped(text):
    """Options of such words. Matplotlib's wrapping takes them for mathematics all the same, and stumbles over half a formula, so words with
    two dollars are not wrapped."""
    return {"parse_math": False, "wrap": text.count("$") < 2}


@contextlib.contextmanager
def whole_where_they_fit(figure, renderer):
    """Meanwhile words that fit as they are keep their lines: to look for breaks, matplotlib measures each line again for each of its words."""
    whole = [text for text in _texts(figure) if text.get_wrap()]
    for text in whole:
        text.set_wrap(False)
    narrow = [text for text in whole if not _fits(text.get_window_extent(renderer), figure.bbox)]
    for text in narrow:
        text.set_wrap(True)
    try:
        yield
    finally:
        for text in whole:
            text.set_wrap(True)


def _texts(figure):
    for part in [figure, *figure.subfigs]:
        yield from (each for each in part.get_children() if isinstance(each, Text))
    for axes in figure.axes:
        yield from axes.texts


def _fits(box, window):
    return window.x0 <= box.x0 and box.x1 <= window.x1
