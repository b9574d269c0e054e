"""What a run of the reference-based motion correction found, as plots."""
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.protocol import params
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer, Viewer

from refmotion_plugin import plots, prior_plots
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.store import load_hyperparameters, load_weights
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters
from refmotion_plugin.protocols import ProtReferenceMotionCorrection

from .figure_view import FigureView, PageView

MOVIES_IN_STATISTICS = 300


class ReferenceMotionCorrectionViewer(ProtocolViewer):
    """Plots of trajectories, correlations and weights; a running protocol may be looked at too."""

    _label = "viewer reference-based motion correction"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtReferenceMotionCorrection]

    def _defineParams(self, form):
        form.addSection(label="Results")
        form.addParam("showReport", params.LabelParam, label="Report", important=True, help="All plots on one page, in the browser.")
        group = form.addGroup("Motion")
        group.addParam("showMotion", params.LabelParam, label="Motion of all particles",
                       help="Speed against dose; spread of path lengths and of the departure from the input motion.")
        group.addParam("movieNumber", params.IntParam, default=1, label="Movie number", help="1: the first aligned movie.")
        group.addParam("exaggeration", params.FloatParam, allowsNull=True, label="Exaggerate trajectories",
                       help="Empty: as fits the field of view.")
        group.addParam("showTrajectories", params.LabelParam, label="Trajectories of this movie")
        group = form.addGroup("Dose")
        group.addParam("opticsGroup", params.IntParam, default=1, label="Optics group", help="1: the first.")
        group.addParam("showWeights", params.LabelParam, label="Dose weights")
        group.addParam("showCorrelation", params.LabelParam, label="Fourier cylinder correlation")
        group = form.addGroup("Particles")
        group.addParam("referenceNumber", params.IntParam, default=1, label="Reference")
        group.addParam("showParticles", params.LabelParam, label="Motion-corrected particles")

    def _getVisualizeDict(self):
        return {"showReport": self._showReport, "showMotion": self._showMotion, "showTrajectories": self._showTrajectories,
                "showWeights": self._showWeights, "showCorrelation": self._showCorrelation, "showParticles": self._showParticles}

    # --------------------------- one method a button -------------------------
    def _showReport(self, paramName=None):
        page = self._results().layout.report if self._has_job() else None
        if page is None or not page.exists():
            return self._not_yet("The report is written when the particles are done")
        return [PageView(page)]

    def _showMotion(self, paramName=None):
        keys = self._aligned()
        if not keys:
            return self._not_yet("No movie is aligned yet")
        step = max(1, len(keys) // MOVIES_IN_STATISTICS)
        return self._figure(plots.motion_figure(self._results().motion_statistics(keys=keys[::step])), "Motion")

    def _showTrajectories(self, paramName=None):
        keys, number = self._aligned(), self.movieNumber.get()
        if not 1 <= number <= len(keys):
            return self._not_yet("There is no aligned movie with number %d: they go from 1 to %d" % (number, len(keys)))
        trajectories = self._results().trajectories(keys[number - 1])
        return self._figure(plots.trajectories_figure(trajectories, self.exaggeration.get() or None), "Trajectories")

    def _showWeights(self, paramName=None):
        weights = self._weights()
        if weights is None:
            return self._not_yet("The dose weights are not measured yet")
        group = self._group(len(weights.weight))
        fcc = self._results().fcc_total()
        highest = None if fcc is None else fcc.frequency_per_angstrom[-1]
        return self._figure(plots.weights_figure(weights, group, highest), "Dose weights")

    def _showCorrelation(self, paramName=None):
        table = self._results().fcc_total() if self._has_job() else None
        if table is None:
            return self._not_yet("The correlations are summed when all movies are aligned")
        return self._figure(plots.fcc_figure(table, self._group(len(table.cross))), "Fourier cylinder correlation")

    def _showParticles(self, paramName=None):
        number = self.referenceNumber.get()
        particles = getattr(self.protocol, "outputParticles" + ("" if number == 1 else str(number)), None)
        if particles is None:
            return self._not_yet("There are no output particles of reference %d" % number)
        return [MDView(particles, self.protocol, self._project.port)]

    # --------------------------- helpers -------------------------------------
    def _results(self):
        return JobResults(self.protocol._jobFolder())

    def _has_job(self):
        try:
            return bool(self._results())
        except InputError:
            return False

    def _aligned(self):
        return self._results().aligned_keys() if self._has_job() else []

    def _weights(self):
        return self._results().weights() if self._has_job() else None

    def _group(self, count):
        return min(max(self.opticsGroup.get(), 1), count) - 1

    def _figure(self, figure, title):
        return [FigureView(figure, "%s - %s" % (title, self.protocol.getObjLabel()), self.getTkRoot())]

    def _not_yet(self, sentence):
        return [self.errorMessage(sentence + ".", "Nothing to show")]


class DoseWeightsViewer(Viewer):
    """The weights of an output, or of one that was given to a later run."""

    _label = "viewer dose weights"
    _environments = [DESKTOP_TKINTER]
    _targets = [EmpiricalDoseWeights]

    def _visualize(self, obj, **kwargs):
        return [FigureView(plots.weights_figure(load_weights(obj.getFileName())), "Dose weights", self.getTkRoot())]


class HyperparametersViewer(Viewer):
    """The motion prior of an output, or of one that was given to a later run."""

    _label = "viewer motion hyperparameters"
    _environments = [DESKTOP_TKINTER]
    _targets = [MotionHyperparameters]

    def _visualize(self, obj, **kwargs):
        return [FigureView(prior_plots.hyperparameters_figure(load_hyperparameters(obj.getFileName())), "Hyperparameters", self.getTkRoot())]
