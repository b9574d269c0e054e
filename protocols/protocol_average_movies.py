"""Form and steps of averaging movies into micrographs; the work is done by the engine in a process of its own."""
import enum
import hashlib
import os

from pwem.objects import SetOfMicrographs
from pwem.protocols import ProtMicrographs
from pyworkflow import BETA
from pyworkflow.protocol import params

from refmotion_plugin import convert
from refmotion_plugin.contract.average_spec import AverageComputeSpec, AverageInputSpec, AverageSpec
from refmotion_plugin.contract.averages import AverageLayout, AverageResults
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import read_json, write_json

from . import correction_form, form_fields, input_checks, live_summary, run_summary
from .earlier_outputs import CurrentOutputs
from .engine_process import device_of, fingerprint_of, incomplete_runs, run_engine
from .streaming import StreamingSteps, add_streaming_fields

OUTPUTS = {"unweighted": "outputMicrographs", "weighted": "outputMicrographsDoseWeighted", "even": "outputMicrographsEven",
           "odd": "outputMicrographsOdd"}
MOVIE_FIELDS = tuple(field for field in form_fields.MOVIES if field.key in AverageInputSpec.model_fields)
DECIDING = form_fields.FRAMES + MOVIE_FIELDS + form_fields.AVERAGE
COMPUTE = tuple(field for field in form_fields.COMPUTE if field.key in AverageComputeSpec.model_fields)
FIELDS = DECIDING + COMPUTE


class AverageMoviesOutputs(enum.Enum):
    """What the protocol makes; the last two on request."""

    outputMicrographs = SetOfMicrographs
    outputMicrographsDoseWeighted = SetOfMicrographs
    outputMicrographsEven = SetOfMicrographs
    outputMicrographsOdd = SetOfMicrographs


class ProtAverageMovies(CurrentOutputs, StreamingSteps, ProtMicrographs):
    """ Averages aligned movies into micrographs, dose-weighted and unweighted.

    Frames are moved along the movies' alignment, local motion included where it is known, by exact shifts in Fourier space. The dose
    weights are those measured by reference-based motion correction, or the standard exposure curve. Micrographs keep names and ids
    of the movies.
    """
    _label = "average movies with dose weights"
    _devStatus = BETA
    _possibleOutputs = AverageMoviesOutputs

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form):
        form.addSection(label="Input")
        correction_form.define_devices(form)
        form.addParam("inputMovies", params.PointerParam, pointerClass="SetOfMovies", important=True, label="Input movies",
                      help="Movies with their alignment. The original movies are needed, not aligned and interpolated stacks.")
        form.addParam("inputDoseWeights", params.PointerParam, pointerClass="EmpiricalDoseWeights", allowsNull=True, label="Dose weights",
                      help="Weights measured by reference-based motion correction, or imported. Empty: the standard exposure curve of "
                           "Grant and Grigorieff.")
        form_fields.add_group(form, "Micrographs", form_fields.AVERAGE)
        correction_form.define_compute(form, COMPUTE)
        form.addSection(label="Movies")
        correction_form.define_frames(form)
        form_fields.add_group(form, "Gain reference", form_fields.GAIN)
        form_fields.add_group(form, "Reading", [field for field in MOVIE_FIELDS if field not in form_fields.GAIN])
        add_streaming_fields(form)
        form.addParallelSection(threads=4, mpi=0)

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        if self._isStreaming():
            self._insertStreamingSteps()
            return
        key, attempt = self._digest(), incomplete_runs(self._jobFolder())
        self._insertFunctionStep(self.convertInputStep, key, needsGPU=False)
        self._insertFunctionStep(self.averageStep, key, attempt, needsGPU=True)
        self._insertFunctionStep(self.createOutputStep, key, attempt, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    def convertInputStep(self, key):
        """Write the movies' STAR files."""
        folder = self._getExtraPath("inputs")
        os.makedirs(folder, exist_ok=True)
        live_summary.forget(self, with_inputs=True)
        self._forgetStream()
        star, micrographs, unaligned = convert.write_movies(self.inputMovies.get(), folder)
        if unaligned:
            self.warning("%d movies have no alignment and are left out: %s" % (len(unaligned), ", ".join(unaligned[:5])))
        write_json(self._getExtraPath("inputs", "inputs.json"), {"movies": star, "micrographs": sorted(micrographs.items())})

    def averageStep(self, key, *_):
        """Average every movie; those that are done already are skipped."""
        job = self._getExtraPath("inputs", "average.json")
        spec = form_fields.spec_of(AverageSpec, self._jobData(self._convertedInputs()["movies"]), FIELDS)
        write_json(job, spec.model_dump(mode="json"))
        live_summary.forget(self)
        try:
            run_engine(self, 'average "%s" --job "%s"' % (self._jobFolder(), job), self._jobFolder())
        finally:
            self._rememberSummary()

    def createOutputStep(self, key, *_):
        """One set of micrographs per kind."""
        for kind, paths, pixel in self._written():
            output = self._createSetOfMicrographs("_" + kind)
            convert.fill_micrographs(output, self.inputMovies.get(), paths, pixel)
            self._defineOutputs(**{OUTPUTS[kind]: output})
            self._defineTransformRelation(self.inputMovies, output)
        self._rememberSummary()

    def _written(self):
        """(kind, {movie id: image}, A/px) of every kind of micrograph that there is."""
        results = AverageResults(self._jobFolder())
        identifier = {name: number for number, name in self._convertedInputs()["micrographs"]}
        for kind in OUTPUTS:
            paths = {identifier[micrograph]: path for micrograph, path in results.micrographs(kind).items()}
            if paths:
                yield kind, paths, results.written()[0]["pixel_angstrom"]

    # --------------------------- STREAMING -----------------------------------
    def _streamPointers(self):
        return [self.inputMovies]

    def _streamFiles(self):
        return ["micrographs_%s.sqlite" % kind for kind in OUTPUTS]

    def _streamBatch(self, movies):
        """Movies are added to the list; their micrographs are added to the outputs."""
        folder, kept = self._getExtraPath("inputs"), self._convertedInputs() or {"micrographs": []}
        os.makedirs(folder, exist_ok=True)
        source = convert.reopened(self.inputMovies.get())
        star, names, _ = convert.write_movies(source, folder, set(movies), dict(map(tuple, kept["micrographs"])))
        write_json(self._getExtraPath("inputs", "inputs.json"), {"movies": star, "micrographs": list(names.items())})
        self.averageStep(self._streamKey())
        for kind, paths, pixel in self._written():
            output = self._growingOutput(SetOfMicrographs, "micrographs_%s.sqlite" % kind)
            self._publishGrown(OUTPUTS[kind], output, self.inputMovies, convert.fill_micrographs(output, source, paths, pixel))

    def _streamEnd(self):
        """Movies that failed are tried once more: their files may be whole now."""
        if self._failed():
            self._streamBatch([])
        self._rememberSummary()
        if not self._publishedAny("outputMicrographsDoseWeighted"):
            failed = self._failed()
            raise RuntimeError("no movie could be averaged: %s" % (failed[0].reason if failed else "none has an alignment"))

    # --------------------------- INFO functions ------------------------------
    def _validate(self):
        absent, movies = input_checks.absent_inputs(self), self.inputMovies.get()
        if absent or movies is None:
            return absent                   # the form itself says if the movies are missing
        errors = input_checks.movie_errors(movies) + form_fields.missing_files(self, FIELDS)
        try:
            form_fields.spec_of(AverageSpec, self._jobData("movies"), FIELDS)
        except InputError as error:
            errors.append(str(error))
        return errors

    def _warnings(self):
        movies = self.inputMovies.get()
        return [] if movies is None else input_checks.movie_warnings(self, movies) + input_checks.crop_warnings(movies)

    def _summary(self):
        live = live_summary.lines(self, live_summary.average_lines)
        return run_summary.kept_or_gathered(self, run_summary.average_numbers) if live is None else live

    def _citations(self):
        return ["Grant2015"]

    def _methods(self):
        output = getattr(self, "outputMicrographsDoseWeighted", None)
        if output is None:
            return []
        weights = "the standard exposure curve" if self.inputDoseWeights.get() is None else "given dose weights"
        return ["%d movies were averaged with %s [Grant2015]; the micrographs have %.3f Å per pixel."
                % (output.getSize(), weights, output.getSamplingRate())]

    # --------------------------- UTILS functions -----------------------------
    def _outputNames(self):
        wanted = {"weighted": True, "unweighted": self.unweighted.get(), "even": self.evenOdd.get(), "odd": self.evenOdd.get()}
        return [OUTPUTS[kind] for kind in OUTPUTS if wanted[kind]]

    def _jobFolder(self):
        return self._getExtraPath("averages")

    def _failed(self):
        """Movies that failed; [] before the engine has begun."""
        return AverageResults(self._jobFolder()).failed() if AverageLayout(self._jobFolder()).job.exists() else []

    def _convertedInputs(self):
        return read_json(self._getExtraPath("inputs", "inputs.json"))

    def _jobData(self, movies_star):
        """Nested parameters: what the form says and the file that stands for its movies."""
        data = form_fields.values_of(self, FIELDS)
        data["output"] = data.pop("average", {})
        data["inputs"] = form_fields.with_reading(data.get("inputs", {}), convert.reading_of(self.inputMovies.get()))
        data["inputs"]["movies"] = movies_star
        if self._isStreaming():
            data["inputs"]["growing"] = True
        if self.inputDoseWeights.get() is not None:
            data["dose"] = {"weights_file": self.inputDoseWeights.get().getFileName()}
        data.setdefault("compute", {}).update(device=device_of(self), threads=max(self.numberOfThreads.get(), 1))
        return data

    def _digest(self, grows=False):
        """Hash of what decides the results: a finished step is kept on Continue while this is the same."""
        parts = [form_fields.values_of(self, DECIDING), fingerprint_of(self.inputMovies, grows), fingerprint_of(self.inputDoseWeights)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def _rememberSummary(self):
        """Numbers that are slow to gather are kept as text for the summary."""
        self.summaryVar.set("\n".join(run_summary.average_numbers(self._jobFolder())))
        self._store(self.summaryVar)
