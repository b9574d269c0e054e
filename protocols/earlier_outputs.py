"""Outputs that an earlier start of a run has published and this start does not make."""

from pyworkflow.utils import cleanPath


class CurrentOutputs:
    """Mixed into a protocol before its base class. The protocol says ``_outputNames()``: what a start with its settings may make."""

    def makePathsAndClean(self):
        """Called by the host in the project before each start: takes away the outputs of other settings.

        Their files are of another start, or this one writes over them. A step cannot do it: of a running protocol the host takes over
        what is new or changed, and keeps what is gone. Finished steps are forgotten with them: a start with the first settings, should this one
        never begin, has to publish them again. What the engine has finished it does not do twice.
        """
        super().makePathsAndClean()
        made = set(self._outputNames())
        gone = [output for name, output in self.iterOutputAttributes() if name not in made]
        for output in gone:
            self.deleteOutput(output)
        if gone:
            cleanPath(self.getStepsFile())
