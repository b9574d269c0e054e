"""Movies and particles of a RELION project as Scipion sets."""
import hashlib
import os
import shlex

from pwem.objects import SetOfMovies, SetOfParticles
from pwem.protocols import ProtImport
from pyworkflow import BETA
from pyworkflow.protocol import params

from refmotion_plugin import convert
from refmotion_plugin.contract.layout import file_stamp

from .earlier_outputs import CurrentOutputs
from .references import suffix_of


class ProtImportRelionMovies(CurrentOutputs, ProtImport):
    """ Imports the movies of a RELION motion correction job with their alignment, and refined particles of the same project.

    Everything that reference-based motion correction needs comes along: shifts, local motion, hot pixels, gain, dose, optics
    groups with their aberrations, orientations, half-sets. Files are linked, not copied.
    """
    _label = "import RELION movies and particles"
    _devStatus = BETA
    _possibleOutputs = {"outputMovies": SetOfMovies, "outputParticles": SetOfParticles}

    def _defineParams(self, form):
        form.addSection(label="Import")
        form.addParam("projectFolder", params.FolderParam, label="RELION project folder", important=True,
                      help="The folder in which RELION ran: files named in STAR files are looked for from here.")
        form.addParam("moviesStar", params.FileParam, label="Motion correction job", important=True,
                      help="corrected_micrographs.star, absolute or from the project folder.")
        form.addParam("particlesStar", params.StringParam, default="", label="Particles",
                      help="Particle STAR file of a 3D refinement, absolute or from the project folder. Several, with spaces or commas between them "
                           "and in quotes where they have such themselves, give outputParticles, outputParticles2 and so on. Empty: only movies.")

    def _insertAllSteps(self):
        self._insertFunctionStep(self.importStep, self._outputKey(), needsGPU=False)

    def importStep(self, key):
        """Read the STAR files and make the sets."""
        project = convert.RelionProject(self.projectFolder.get(), self._fromProject(self.moviesStar.get()))
        movies = self._createSetOfMovies()
        convert.fill_movies(movies, project, self._getExtraPath())
        self._defineOutputs(outputMovies=movies)
        for index, star in enumerate(self._particleStars()):
            suffix = suffix_of(index)
            particles = self._createSetOfParticles(suffix)
            lost = convert.fill_particles_from_star(particles, project, star, self._getExtraPath())
            self._defineOutputs(**{"outputParticles" + suffix: particles})
            if lost:
                self.warning("%d particles of %s belong to none of the movies" % (lost, star))

    @classmethod
    def validateInstallation(cls):
        """Nothing of the engine is needed here."""
        return []

    def _validate(self):
        files = [self._fromProject(self.moviesStar.get() or "")] + self._particleStars()
        missing = [f for f in files if not os.path.isfile(f)]
        return ["%s is not a file: give its path, absolute or from the project folder." % f for f in missing]

    def _summary(self):
        movies = getattr(self, "outputMovies", None)
        return ["%d movies imported." % movies.getSize()] if movies is not None else []

    def _outputNames(self):
        return ["outputMovies"] + ["outputParticles" + suffix_of(index) for index in range(len(self._particleStars()))]

    def _outputKey(self):
        """Hash of the files as they are now: a finished import is kept on Continue while this is the same."""
        stars = [self._fromProject(self.moviesStar.get() or "")] + self._particleStars()
        parts = [self.projectFolder.get()] + [(star, file_stamp(star)) for star in stars]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def _particleStars(self):
        """Files of the field: its whole text if that is one, else its words as a shell would take them, commas too between them."""
        text = (self.particlesStar.get() or "").strip()
        words = shlex.shlex(text, posix=True, punctuation_chars=False)
        words.whitespace, words.whitespace_split, words.commenters = words.whitespace + ",", True, ""
        try:
            names = [text] if os.path.isfile(self._fromProject(text)) else list(words)
        except ValueError:          # a quote that does not end
            names = [text]
        return [self._fromProject(name) for name in names]

    def _fromProject(self, name):
        return os.path.join(self.projectFolder.get() or "", name)
