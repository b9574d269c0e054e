"""Outputs that an earlier start of a run has published and this start does not make."""


class CurrentOutputs:
    """Mixed into a protocol before its base class. The protocol says ``_outputNames()``: what a start with its settings may make."""

    def makePathsAndClean(self):
        """Called by the host in the project before each start: takes away the outputs of other settings.

        Their files are of another start, or this one writes over them. A step cannot do it: of a running protocol the host takes over
        what is new or changed, and keeps what is gone.
        """
        super().makePathsAndClean()
        made = set(self._outputNames())
        for name, output in list(self.iterOutputAttributes()):
            if name not in made:
                self.deleteOutput(output)
