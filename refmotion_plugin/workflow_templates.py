"""Workflow templates in which a placeholder may stand in several places and is asked for once."""
from pyworkflow.template import LocalTemplate


class RepeatingTemplate(LocalTemplate):
    """A template of this plugin. The host fills in only the last of several placeholders with the same title; here all get its value."""

    def parseContent(self):
        """Find the placeholders, which are the odd parts of the content, and remember where each stands."""
        super().parseContent()
        self._places = {index: self.content[index].split("|")[0] for index in range(1, len(self.content), 2)}

    def _replaceFields(self):
        for index, title in self._places.items():
            self.content[index] = self.params[title].getValue()
