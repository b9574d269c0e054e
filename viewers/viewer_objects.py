"""Windows of the results that travel between runs: dose weights and hyperparameters."""
from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.store import load_hyperparameters, load_weights
from refmotion_plugin.figures.prior import hyperparameters_figure
from refmotion_plugin.figures.weights import weights_figure
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters

from .figure_view import FigureView

USUAL_KILOVOLT = 300


def weights_windows(weights, voltage_kilovolt, root, label=""):
    """A window per optics group; the standard curve in it is that of a voltage, None: unknown, so that of 300 kV, which is said."""
    names = [""] if len(weights.weight) == 1 else [" of optics group %d" % (g + 1) for g in range(len(weights.weight))]
    unknown = "" if voltage_kilovolt else " (standard curve of %d kV)" % USUAL_KILOVOLT
    return [FigureView(weights_figure(weights, group, voltage_kilovolt=voltage_kilovolt or USUAL_KILOVOLT), "Dose weights%s%s%s" % (name, unknown, label and " - " + label), root)
            for group, name in enumerate(names)]


class DoseWeightsViewer(Viewer):
    """The weights of an output, or of one that was given to a later run: a window per optics group."""

    _label = "viewer dose weights"
    _environments = [DESKTOP_TKINTER]
    _targets = [EmpiricalDoseWeights]

    def _visualize(self, obj, **kwargs):
        try:
            weights = load_weights(obj.getFileName())
        except InputError as error:
            return [self.errorMessage(str(error), "Nothing to show")]
        return weights_windows(weights, None, self.getTkRoot())


class HyperparametersViewer(Viewer):
    """The motion prior of an output, or of one that was given to a later run."""

    _label = "viewer motion hyperparameters"
    _environments = [DESKTOP_TKINTER]
    _targets = [MotionHyperparameters]

    def _visualize(self, obj, **kwargs):
        try:
            prior = load_hyperparameters(obj.getFileName())
        except InputError as error:
            return [self.errorMessage(str(error), "Nothing to show")]
        return [FigureView(hyperparameters_figure(prior), "Hyperparameters", self.getTkRoot())]
