"""Work on the parts of a movie from several threads."""
from concurrent.futures import ThreadPoolExecutor


def each(work, items, threads=1):
    """``[work(item) for item in items]``, from several threads where more than one is given; the first error of an item passes."""
    if threads == 1 or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(work, items))
