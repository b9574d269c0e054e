"""Outputs that an earlier start of a run has published and this start does not make."""
import json

from pyworkflow.utils import cleanPath


class CurrentOutputs:
    """Mixed into a protocol before its base class. The protocol says:

    ``_outputNames()`` what a start with its settings may make; ``_outputKey()`` hash of what decides it, the first argument of its steps.
    """

    def makePathsAndClean(self):
        """Called by the host in the project before each start: takes away the outputs of other settings.

        Their files are of another start, or this one writes over them. A step cannot do it: of a running protocol the host takes over
        what is new or changed, and keeps what is gone. Of outputs without steps it is not known which settings made them.
        """
        super().makePathsAndClean()
        steps, made = self.loadSteps(), self._outputNames()
        if not steps or json.loads(steps[0].argsStr.get())[0] != self._outputKey():
            made = []
        for output in [output for name, output in self.iterOutputAttributes() if name not in made]:
            self.deleteOutput(output)

    def deleteOutput(self, output):
        """Called by the host too, when a user deletes an output.

        Finished steps are forgotten with it, since Continue, or a start with the first settings, has to publish it again. What the engine has
        finished it does not do twice.
        """
        super().deleteOutput(output)
        if not self.isRunning():
            cleanPath(self.getStepsFile())
