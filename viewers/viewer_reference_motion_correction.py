"""What a run of the reference-based motion correction found, as plots."""
import os

from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.protocol import params
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.figures import catalogue
from refmotion_plugin.figures.export import FORMATS, save_data, save_figure
from refmotion_plugin.protocols import ProtReferenceMotionCorrection

from .figure_view import FigureView, PageView, SavedView
from .movie_browser import MovieBrowser

NOT_YET = {"verdict": "The verdict is given when the particles are done", "motion": "No movie is aligned yet",
           "movies": "No movie has been read yet", "states": "No movie has been read yet",
           "search": "There was no search for hyperparameters, or it is not finished", "prior": "There is no motion prior: the run has not "
           "started, or it keeps the input motion", "weights": "The dose weights are not measured yet",
           "fcc": "The correlations are summed when all movies are aligned", "particles": "There are no corrected particles of this reference yet",
           "fsc": "There is no reconstruction of this reference: it is made at the end of a run whose form asks for it",
           "power": "There are no corrected particles of this reference yet"}


class ReferenceMotionCorrectionViewer(ProtocolViewer):
    """Plots of verdict, trajectories, correlations, weights and particles; a running protocol may be looked at too."""

    _label = "viewer reference-based motion correction"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtReferenceMotionCorrection]

    def _defineParams(self, form):
        form.addSection(label="Results")
        form.addParam("showVerdict", params.LabelParam, label="Verdict", important=True, help="What the correction brings, and how sure that is.")
        form.addParam("showMovieList", params.LabelParam, label="List of movies and their trajectories", important=True,
                      help="All movies with particles, motion, state and reason of failure; a click on one draws its trajectories.")
        form.addParam("showReport", params.LabelParam, label="Report", help="All plots on one page, in the browser.")
        self._motion(form)
        self._dose(form)
        self._particles(form)
        form.addSection(label="Save")
        form.addParam("saveFormat", params.EnumParam, choices=[name.upper() for name in FORMATS], default=0, display=params.EnumParam.DISPLAY_HLIST,
                      label="Format", help="PNG: pixels. PDF and SVG: lines and text, to be edited and enlarged.")
        form.addParam("saveData", params.BooleanParam, default=True, label="Numbers as CSV too", help="Beside each picture the numbers behind it.")
        form.addParam("saveAll", params.LabelParam, label="Save all plots", help="Into the folder extra/figures of the run.")

    def _motion(self, form):
        group = form.addGroup("Motion")
        group.addParam("showMotion", params.LabelParam, label="Motion of all particles",
                       help="Speed and departure from the input motion against dose; how they spread over particles.")
        group.addParam("showMovies", params.LabelParam, label="Movies side by side", help="Motion, uncertainty and strength of each movie.")
        group.addParam("showStates", params.LabelParam, label="Failed movies and left-out particles", help="How many, and why.")
        group.addParam("movieNumber", params.IntParam, default=1, label="Movie number", help="1: the first aligned movie.")
        group.addParam("exaggeration", params.FloatParam, allowsNull=True, label="Exaggerate trajectories", help="Empty: as fits the field of view.")
        group.addParam("showTrajectories", params.LabelParam, label="Trajectories of this movie",
                       help="The movie with that number in a window of its own, the whole motion beside the motion without the movie's mean.")
        group.addParam("showSearch", params.LabelParam, label="Search for hyperparameters", help="Score and activity along the rays, families of priors.")
        group.addParam("showPrior", params.LabelParam, label="Motion prior", help="What the hyperparameters allow.")

    def _dose(self, form):
        group = form.addGroup("Dose")
        group.addParam("opticsGroup", params.IntParam, default=1, label="Optics group", help="1: the first.")
        group.addParam("showCorrelation", params.LabelParam, label="Fourier cylinder correlation", help="How much of the reference each frame shows.")
        group.addParam("showWeights", params.LabelParam, label="Dose weights", help="Weights per frame and frequency, B-factors and scales, the standard curve.")

    def _particles(self, form):
        group = form.addGroup("Particles")
        group.addParam("referenceNumber", params.IntParam, default=1, label="Reference",
                       help="1: the first. Which reference the plots below show, of a run with several.")
        group.addParam("showReconstruction", params.LabelParam, label="Reconstruction before and after",
                       help="FSC of half-maps of the same particles in the same poses, if the form asked for it.")
        group.addParam("showGallery", params.LabelParam, label="Particles before and after",
                       help="A dozen particles of the input beside the same after correction, low-passed for the eye: they should look alike.")
        group.addParam("showSpectra", params.LabelParam, label="Spectra before and after",
                       help="Mean power spectra of particles, and how the images before and after agree at each resolution.")
        group.addParam("showParticles", params.LabelParam, label="Motion-corrected particles", help="The output set as a table with images.")

    def _getVisualizeDict(self):
        return {"showVerdict": lambda _=None: self._entry("verdict"), "showMovieList": self._showMovieList, "showReport": self._showReport,
                "showMotion": lambda _=None: self._entry("motion"), "showMovies": lambda _=None: self._entry("movies"),
                "showStates": lambda _=None: self._entry("states"), "showTrajectories": self._showTrajectories,
                "showSearch": lambda _=None: self._entry("search"), "showPrior": lambda _=None: self._entry("prior"),
                "showCorrelation": lambda _=None: self._entry("fcc", self.opticsGroup.get(), "optics group"),
                "showWeights": lambda _=None: self._entry("weights", self.opticsGroup.get(), "optics group"),
                "showReconstruction": lambda _=None: self._entry("fsc", self.referenceNumber.get(), "reconstruction"),
                "showGallery": lambda _=None: self._entry("particles", self.referenceNumber.get(), "reference"),
                "showSpectra": lambda _=None: self._entry("power", self.referenceNumber.get(), "reference"),
                "showParticles": self._showParticles, "saveAll": self._saveAll}

    # --------------------------- what the buttons do -------------------------
    def _entry(self, name, number=1, of=None):
        """The figure of that name in the catalogue; ``number`` counts optics groups or references from 1."""
        if not self._has_job():
            return self._not_yet("The run has no results yet")
        entries = {entry.name: entry for entry in catalogue.job_figures(self._results())}
        entry = entries.get(name if number == 1 else "%s_%d" % (name, number))
        if entry is None:
            return self._not_yet(NOT_YET[name] if name not in entries else "There is no %s with number %d" % (of, number))
        try:
            figure = entry.draw()
        except InputError as error:
            return [self.errorMessage(str(error), "Nothing to show")]
        return self._not_yet("The images cannot be read any more") if figure is None else self._figure(figure, entry.title)

    def _showMovieList(self, paramName=None):
        if not self._has_job() or not self._results().movies():
            return self._not_yet(NOT_YET["movies"])
        return [MovieBrowser(self._results(), "Movies - %s" % self.protocol.getObjLabel(), self.getTkRoot())]

    def _showReport(self, paramName=None):
        page = self._results().layout.report if self._has_job() else None
        if page is None or not page.exists():
            return self._not_yet("The report is written when the particles are done")
        return [PageView(page)]

    def _showTrajectories(self, paramName=None):
        keys, number = self._results().aligned_keys() if self._has_job() else [], self.movieNumber.get()
        if not keys:
            return self._not_yet(NOT_YET["motion"])
        if not 1 <= number <= len(keys):
            return self._not_yet("There is no aligned movie with number %d: they go from 1 to %d" % (number, len(keys)))
        try:
            figure = catalogue.draw_trajectories_of(self._results(), keys[number - 1], exaggeration=self.exaggeration.get() or None)
        except InputError as error:
            return [self.errorMessage(str(error), "Nothing to show")]
        return self._figure(figure, "Trajectories")

    def _showParticles(self, paramName=None):
        number = self.referenceNumber.get()
        particles = getattr(self.protocol, "outputParticles" + ("" if number == 1 else str(number)), None)
        if particles is None:
            return self._not_yet("There are no output particles of reference %d" % number)
        return [MDView(particles, self.protocol, self._project.port)]

    def _saveAll(self, paramName=None):
        if not self._has_job():
            return self._not_yet("The run has no results yet")
        folder, files, faults = self.protocol._getExtraPath("figures"), [], []
        for entry in catalogue.job_figures(self._results()):
            path = os.path.join(folder, "%s.%s" % (entry.name, FORMATS[self.saveFormat.get()]))
            try:
                figure = entry.draw()
                if figure is not None:
                    files += [save_figure(figure, path)] + (save_data(figure, path) if self.saveData.get() else [])
            except Exception as error:      # told below: the others are wanted nevertheless
                faults.append("%s: %s" % (entry.title, error if isinstance(error, InputError) else repr(error)))
        return [SavedView(folder, files)] + ([self.errorMessage("\n".join(faults), "Plots that could not be drawn")] if faults else [])

    # --------------------------- helpers -------------------------------------
    def _results(self):
        return JobResults(self.protocol._jobFolder())

    def _has_job(self):
        try:
            return bool(self._results())
        except InputError:
            return False

    def _figure(self, figure, title):
        return [FigureView(figure, "%s - %s" % (title, self.protocol.getObjLabel()), self.getTkRoot())]

    def _not_yet(self, sentence):
        return [self.infoMessage(sentence.rstrip(".") + ".", "Nothing to show")]
