"""The list in which a wizard's suggestions are shown."""
from pyworkflow.gui.dialog import ListDialog
from pyworkflow.gui.tree import TreeProvider
from pyworkflow.object import Object


class SuggestionProvider(TreeProvider):
    """The suggestions as rows of the host's list."""

    def __init__(self, suggestions):
        TreeProvider.__init__(self)
        self._rows = []
        for suggestion in suggestions:
            row = Object()
            row.suggestion = suggestion
            self._rows.append(row)

    def getColumns(self):
        return [("Value", 220), ("Why", 620)]

    def getObjects(self):
        return self._rows

    def getObjectInfo(self, obj):
        return {"key": id(obj), "text": obj.suggestion.value, "values": (obj.suggestion.reason,)}


def ask(parent, title, message, suggestions):
    """Show suggestions (value, reason) and wait: the one that was picked, or None."""
    dialog = ListDialog(parent, title, SuggestionProvider(suggestions), message, selectmode="browse", selectOnDoubleClick=True)
    return dialog.values[0].suggestion if dialog.resultYes() and dialog.values else None
