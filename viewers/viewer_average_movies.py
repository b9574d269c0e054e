"""What averaging movies gave: micrographs, their spectra, failed movies, and the dose weights that were used."""
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.protocol import params
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from refmotion_plugin.contract.averages import AverageResults
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.store import load_weights
from refmotion_plugin.figures.averages import average_figure, average_states_figure
from refmotion_plugin.protocols import ProtAverageMovies

from .figure_view import FigureView
from .viewer_objects import weights_windows


class AverageMoviesViewer(ProtocolViewer):
    """Averages of single movies, what failed, the weights that were used, and the sets; a running protocol may be looked at too."""

    _label = "viewer average movies"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtAverageMovies]

    def _defineParams(self, form):
        form.addSection(label="Results")
        form.addParam("movieNumber", params.IntParam, default=1, label="Movie number", help="1: the first that is averaged.")
        form.addParam("showAverage", params.LabelParam, label="Averages of this movie", important=True, help="Micrographs side by side and their power spectra.")
        form.addParam("showStates", params.LabelParam, label="Failed movies", help="How many, and why.")
        form.addParam("showWeights", params.LabelParam, label="Dose weights that were used",
                      help="The input dose weights; without them the standard exposure curve was used.")
        form.addParam("showMicrographs", params.LabelParam, label="Dose-weighted micrographs", help="The output set as a table with images.")

    def _getVisualizeDict(self):
        return {"showAverage": self._showAverage, "showStates": self._showStates, "showWeights": self._showWeights, "showMicrographs": self._showMicrographs}

    # --------------------------- what the buttons do -------------------------
    def _showAverage(self, paramName=None):
        results = self._results()
        rows, number = [] if results is None else results.written(), self.movieNumber.get()
        if not rows:
            return self._not_yet("The list of averages is written when all movies are done")
        if not 1 <= number <= len(rows):
            return self._not_yet("There is no average with number %d: they go from 1 to %d" % (number, len(rows)))
        row = rows[number - 1]
        return self._figure(average_figure(row["micrograph"], row["files"], row["pixel_angstrom"]), "Averages")

    def _showStates(self, paramName=None):
        results = self._results()
        movies = [] if results is None else results.movies()
        return self._figure(average_states_figure(movies), "Movies") if movies else self._not_yet("No movie has been read yet")

    def _showWeights(self, paramName=None):
        given = self.protocol.inputDoseWeights.get()
        if given is None:
            return [self.infoMessage("No measured weights were given: the standard exposure curve of Grant and Grigorieff was used.", "Dose weights")]
        movies = self.protocol.inputMovies.get()
        try:
            return weights_windows(load_weights(given.getFileName()), movies and movies.getAcquisition().getVoltage(), self.getTkRoot(), self.protocol.getObjLabel())
        except InputError as error:
            return [self.errorMessage(str(error), "Nothing to show")]

    def _showMicrographs(self, paramName=None):
        micrographs = getattr(self.protocol, "outputMicrographsDoseWeighted", None)
        if micrographs is None:
            return self._not_yet("There are no dose-weighted micrographs yet")
        return [MDView(micrographs, self.protocol, self._project.port)]

    # --------------------------- helpers -------------------------------------
    def _results(self):
        try:
            return AverageResults(self.protocol._jobFolder())
        except InputError:
            return None

    def _figure(self, figure, title):
        return [FigureView(figure, "%s - %s" % (title, self.protocol.getObjLabel()), self.getTkRoot())]

    def _not_yet(self, sentence):
        return [self.infoMessage(sentence.rstrip(".") + ".", "Nothing to show")]
