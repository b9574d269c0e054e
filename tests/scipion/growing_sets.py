"""Sets that another protocol seems to fill: a saved protocol holds them open, the test adds items and closes them."""
import time

from pyworkflow.object import Set


class GrowingSet:
    """Output ``name`` of a new protocol, open, with the items of ``source`` for which ``wanted(item)`` is true; more may be added."""

    def __init__(self, project, holder_class, name, source, wanted):
        self.source, self.name = source, name
        self.protocol = project.newProtocol(holder_class)
        project.saveProtocol(self.protocol)
        self.protocol.makeWorkingDir()
        self.path = self.protocol._getPath(name + ".sqlite")
        items = type(source)(filename=self.path)
        items.copyInfo(source)
        items.setStreamState(Set.STREAM_OPEN)
        if hasattr(source, "getFramesRange"):
            items.setDim(source.getDim())
        self._append(items, wanted)         # the file of a set without items has no properties yet
        items.write()
        self.protocol._defineOutputs(**{name: items})
        self.protocol.setStatus("finished")
        project._storeProtocol(self.protocol)

    @property
    def pointer(self):
        """What ``new_protocol`` takes as an input."""
        return self.protocol, self.name

    def add(self, wanted):
        """Append the items of the source for which ``wanted(item)`` is true."""
        items = self._opened()
        items.enableAppend()
        self._append(items, wanted)
        self._written(items)

    def _append(self, items, wanted):
        for item in self.source.iterItems():
            if wanted(item):
                items.append(item.clone())

    def close(self):
        """Nothing more will come."""
        items = self._opened()
        items.setStreamState(Set.STREAM_CLOSED)
        self._written(items)

    def _opened(self):
        items = type(self.source)(filename=self.path)
        items.loadAllProperties()
        return items

    def _written(self, items):
        items.write()
        items.close()
        output = getattr(self.protocol, self.name)
        output.copy(items, copyId=False, ignoreAttrs=[])
        self.protocol._store(output)


def wait_for(condition, seconds=180):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)
