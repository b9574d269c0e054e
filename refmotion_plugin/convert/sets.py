"""Reading the items of a Scipion set."""


def enabled_items(items):
    """The items of a set by id, without those a user has disabled. The same object each time: clone what is kept."""
    return (item for item in items.iterItems(orderBy="id") if item.isEnabled())


def first_item(items):
    """The first item of a set, or None.

    The host's ``getFirstItem`` leaves its query unfinished, and with it a lock: the protocol that fills a growing set would wait for it
    until this run ends.
    """
    return next(iter(list(items.iterItems(limit=1))), None)
