"""Windows of the results that travel between runs: dose weights and hyperparameters."""
from pyworkflow.viewer import DESKTOP_TKINTER, Viewer

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.store import load_hyperparameters, load_weights
from refmotion_plugin.figures.prior import hyperparameters_figure
from refmotion_plugin.figures.weights import weights_figure
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters

from .figure_view import FigureView


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
        names = [""] if len(weights.weight) == 1 else [" of optics group %d" % (g + 1) for g in range(len(weights.weight))]
        return [FigureView(weights_figure(weights, group), "Dose weights" + name, self.getTkRoot()) for group, name in enumerate(names)]


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
