"""Form and steps of the reference-based motion correction; the work is done by the engine in a process of its own."""
import enum
import hashlib
import os

from pwem.objects import SetOfParticles
from pwem.protocols import ProtParticles
from pyworkflow import BETA

from refmotion_plugin import convert
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import JobLayout, read_json, write_json
from refmotion_plugin.contract.results import JobResults
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters

from . import correction_form, form_fields, input_checks, live_summary, run_summary
from .earlier_outputs import CurrentOutputs
from .engine_process import device_of, fingerprint_of, incomplete_runs, run_engine
from .references import chosen_references, suffix_of
from .streaming import StreamingSteps

STAGES = ("hyperparameters", "dose-weights", "particles")
LAST_STAGE = STAGES.index("particles")


class ReferenceMotionOutputs(enum.Enum):
    """What the protocol makes; further references give outputParticles2 and so on."""

    outputHyperparameters = MotionHyperparameters
    outputDoseWeights = EmpiricalDoseWeights
    outputParticles = SetOfParticles


class ProtReferenceMotionCorrection(CurrentOutputs, StreamingSteps, ProtParticles):
    """ Follows the motion of every particle through the frames of its movie by comparing them with a reference map, measures
    how fast the signal fades with dose, and writes motion-corrected, dose-weighted particles.

    Give aligned movies, and for up to four references the particles of a 3D refinement with its half-maps. All references
    share the motion of the movies. The hyperparameters and the dose weights are outputs too: later runs can take them.
    """
    _label = "reference-based motion correction"
    _devStatus = BETA
    _possibleOutputs = ReferenceMotionOutputs

    # --------------------------- DEFINE param functions ----------------------
    def _defineParams(self, form):
        correction_form.define(form)

    # --------------------------- INSERT steps functions ----------------------
    def _insertAllSteps(self):
        if self._isStreaming():
            self._insertStreamingSteps()
            return
        key, last, attempt = self._digest(), self._lastStage(), incomplete_runs(self._jobFolder())
        self._insertFunctionStep(self.convertInputStep, key, needsGPU=False)
        if last == LAST_STAGE and self.inputDoseWeights.get() is not None:
            self._insertFunctionStep(self.alignAndPolishStep, key, attempt, needsGPU=True)
        else:
            # a run that ends with the hyperparameters aligns no movie: its step is another one
            self._insertFunctionStep(self.alignStep, key, last > 0, attempt, needsGPU=True)
            for step in (self.weighStep, self.polishStep)[:last]:
                self._insertFunctionStep(step, key, attempt, needsGPU=True)
        if last == LAST_STAGE:
            self._insertFunctionStep(self.createOutputStep, key, attempt, needsGPU=False)

    # --------------------------- STEPS functions -----------------------------
    def convertInputStep(self, key):
        """Write the movies' and particles' STAR files, and the job's parameters."""
        folder = self._inputsFolder()
        os.makedirs(folder, exist_ok=True)
        live_summary.forget(self, with_inputs=True)
        self._forgetStream()
        movies, references = self.inputMovies.get(), chosen_references(self)
        movie_names = {movie.getObjId(): movie.getMicName() for movie in movies}
        matches = [convert.match_movies(movie_names, convert.micrograph_counts(r.particles)) for r in references]
        used = {identifier for match in matches for identifier in match.movie_of.values()}
        star, micrographs, unaligned = convert.write_movies(movies, folder, used)
        for reference, match in zip(references, matches):
            convert.write_particles(reference.particles, self._particlesStar(reference.index), match, micrographs,
                                    self._coordinatePixel(reference.particles), movies.getSamplingRate())
            self.info("Reference %d: %s." % (reference.index + 1, match.sentence()))
        if unaligned:
            self.warning("%d movies have no alignment and are left out: %s" % (len(unaligned), ", ".join(unaligned[:5])))
        maps = [self._mapsOf(reference) for reference in references]
        write_json(self._getExtraPath("inputs", "inputs.json"), {"movies": star, "references": maps})

    def alignStep(self, key, *_):
        """Trajectories of all particles, and what the weights need; images of those whose movie was read when the weights were known."""
        self._runEngine("movies" if self._lastStage() == LAST_STAGE else "align")
        return self._publishHyperparameters()

    def weighStep(self, key, *_):
        """Dose weights from all movies together."""
        self._runEngine("weigh")
        if self.inputDoseWeights.get() is not None:
            return []
        weights = EmpiricalDoseWeights()
        weights.setRecord(self._results().weights())
        weights.setFileName(str(self._layout().weights))
        self._publish("outputDoseWeights", weights, *[r.particlesPointer for r in chosen_references(self)])
        return [weights.getFileName()]

    def polishStep(self, key, *_):
        """Motion-corrected, dose-weighted images."""
        self._runEngine("polish")
        return [str(path) for path in self._results().particle_stars()]

    def alignAndPolishStep(self, key, *_):
        """With dose weights given each movie is read once for both."""
        self._runEngine("all")
        return self._publishHyperparameters() + [str(path) for path in self._results().particle_stars()]

    def createOutputStep(self, key, *_):
        """One SetOfParticles per reference."""
        references = chosen_references(self)
        for reference in references:
            star = self._layout().particles(reference.index, len(references))
            if not star.exists():
                self.warning("Reference %d: no particle could be corrected, see the list of failed movies." % (reference.index + 1))
                continue
            suffix = suffix_of(reference.index)
            output = self._createSetOfParticles(suffix)
            convert.fill_particles(output, reference.particles, str(star), self.inputMovies.get().getSamplingRate())
            self._defineOutputs(**{"outputParticles" + suffix: output})
            self._defineTransformRelation(reference.particlesPointer, output)
        self._rememberSummary()

    # --------------------------- STREAMING -----------------------------------
    def _streamPointers(self):
        return [self.inputMovies] + [r.particlesPointer for r in chosen_references(self)]

    def _streamFiles(self):
        return ["particles%s.sqlite" % suffix_of(r.index) for r in chosen_references(self)]

    def _streamBatch(self, movies):
        """Movies and their particles are added to the job's lists; what the job makes of them is added to the outputs."""
        self._extendInputs(set(movies))
        self._runGrown()

    def _streamEnd(self):
        """Particles that found no movie are given to the job too, to be listed with the reason; movies that failed are tried once more."""
        if self._batches.taken and (self._extendInputs(None) or self._failed()):
            self._runGrown()
        self._rememberSummary()
        if not self._publishedAny(*["outputParticles" + suffix_of(r.index) for r in chosen_references(self)]):
            reasons = [movie.reason for movie in self._failed()] or ["none belongs to one of the movies"]
            raise RuntimeError("no particle could be corrected: %s" % reasons[0])

    def _extendInputs(self, only):
        """Add the movies with these ids and their particles to the job's files (none: all other particles); returns how many were added."""
        folder, kept = self._inputsFolder(), self._getExtraPath("inputs", "inputs.json")
        os.makedirs(folder, exist_ok=True)
        references, movies = chosen_references(self), convert.reopened(self.inputMovies.get())
        particles = [convert.reopened(r.particles) for r in references]
        inputs = read_json(kept) or {"references": [self._mapsOf(r) for r in references], "names": []}
        star, names, _ = convert.write_movies(movies, folder, only or (), dict(map(tuple, inputs["names"])))
        write_json(kept, dict(inputs, movies=star, names=list(names.items())))
        matches = convert.matches_of(movies, particles)
        input_checks.require_particles(matches, names)      # the first batch waited for them as long as the inputs were open
        return sum(convert.write_particles(source, self._particlesStar(r.index), match, names, self._coordinatePixel(r.particles),
                                           movies.getSamplingRate(), only, add=True)
                   for r, source, match in zip(references, particles, matches))

    def _runGrown(self):
        """Run the engine on what is new, and publish it."""
        self._runEngine("all")
        published = getattr(self, "outputHyperparameters", None)
        if published is None or not published.holds(self._results().hyperparameters()):       # they may have been changed before going on
            self._publishHyperparameters()
        references = chosen_references(self)
        for reference, file_name in zip(references, self._streamFiles()):
            star = self._layout().particles(reference.index, len(references))
            output = self._growingOutput(SetOfParticles, file_name)
            if star.exists():
                added = convert.add_particles(output, convert.reopened(reference.particles), str(star), self.inputMovies.get().getSamplingRate())
                self._publishGrown("outputParticles" + suffix_of(reference.index), output, reference.particlesPointer, added)

    # --------------------------- INFO functions ------------------------------
    def _validate(self):
        try:
            errors = input_checks.errors(self, chosen_references(self), self._coordinatePixel) + form_fields.missing_files(self)
            if not errors:
                maps = [dict(half1="1", half2="2")] * len(chosen_references(self))
                spec = form_fields.spec_of(JobSpec, self._jobData({"movies": "movies", "references": maps}))
                errors += input_checks.streaming_errors(self, spec) if self._isStreaming() else []
            return errors
        except InputError as error:
            return [str(error)]

    def _warnings(self):
        return input_checks.warnings(self, chosen_references(self))

    def _summary(self):
        return run_summary.lines(self, live_summary.lines(self, live_summary.correction_lines), self._lastStage() == LAST_STAGE)

    def _citations(self):
        return ["Zivanov2019", "Grant2015"]

    def _methods(self):
        return run_summary.methods(self)

    # --------------------------- UTILS functions -----------------------------
    def _outputNames(self):
        """What is neither given nor without use, as far as the run goes, and particles of each reference if it goes to its end."""
        needless = (("outputHyperparameters", self.inputHyperparameters.hasValue() or self.rigidOnly.get()), ("outputDoseWeights", self.inputDoseWeights.hasValue()))
        found = [name for name, so in needless[:self._lastStage() + 1] if not so]
        return found + ["outputParticles" + suffix_of(r.index) for r in chosen_references(self) if self._lastStage() == LAST_STAGE]

    def _lastStage(self):
        return self.stopAfter.get()

    def _jobFolder(self):
        return self._getExtraPath("job")

    def _inputsFolder(self):
        return self._getExtraPath("inputs")

    def _layout(self):
        return JobLayout(self._jobFolder())

    def _results(self):
        return JobResults(self._jobFolder())

    def _failed(self):
        """Movies of the job that failed; [] before there is a job."""
        return self._results().failed() if self._layout().job.exists() else []

    def _particlesStar(self, index):
        return os.path.join(self._inputsFolder(), "particles_%d.star" % (index + 1))

    def _coordinatePixel(self, particles):
        """A/px of the coordinates of a set."""
        given = self.coordinatePixel.get()
        return given if given and given > 0 else particles.getSamplingRate()

    def _mapsOf(self, reference):
        """Half-maps and mask of a reference as the engine reads them."""
        maps = dict(zip(("half1", "half2"), convert.half_map_files(reference.volume)))
        if reference.mask is not None:
            maps["mask"] = reference.mask.getFileName()
        copy = os.path.join(self._inputsFolder(), "reference_%d_%%s.mrc" % (reference.index + 1))
        return {name: convert.with_voxel_size(path, reference.volume.getSamplingRate(), copy % name) for name, path in maps.items()}

    def _jobData(self, inputs):
        """Nested parameters of the job: what the form says and the files that stand for its sets."""
        data = form_fields.values_of(self)
        data["inputs"] = form_fields.with_reading(data.get("inputs", {}), convert.reading_of(self.inputMovies.get()))
        data["inputs"]["movies"] = inputs["movies"]
        data["references"] = [dict(maps, particles=self._particlesStar(i)) for i, maps in enumerate(inputs["references"])]
        prior = data.setdefault("motion_prior", {})
        if self.inputHyperparameters.get() is not None:
            prior["hyperparameters_file"] = self.inputHyperparameters.get().getFileName()
        if self.inputDoseWeights.get() is not None:
            data.setdefault("dose", {})["weights_file"] = self.inputDoseWeights.get().getFileName()
        if self._isStreaming():
            data["inputs"]["growing"] = True
        data.setdefault("compute", {}).update(device=self._device(), threads=max(self.numberOfThreads.get(), 1))
        return data

    def _device(self):
        """GPUs of this run, by their number among those it sees: a queue's CUDA_VISIBLE_DEVICES stays as it is."""
        return device_of(self)

    def _digest(self, grows=False):
        """Hash of what decides the results: a finished step is kept on Continue while this is the same."""
        parts = [form_fields.values_of(self, form_fields.DECIDING), self.coordinatePixel.get(), fingerprint_of(self.inputMovies, grows)]
        parts += [[fingerprint_of(p, grows) for p in r.pointers] for r in chosen_references(self)]
        parts += [fingerprint_of(self.inputHyperparameters), fingerprint_of(self.inputDoseWeights)]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def _runEngine(self, stage):
        """Run one stage. A movie that fails is listed and costs nothing else; an engine that stops ends the step with its reason."""
        job = self._getExtraPath("inputs", "job.json")
        inputs = read_json(self._getExtraPath("inputs", "inputs.json"))
        write_json(job, form_fields.spec_of(JobSpec, self._jobData(inputs)).model_dump(mode="json"))
        live_summary.forget(self)
        try:
            run_engine(self, 'run "%s" --job "%s" --stage %s' % (self._jobFolder(), job, stage), self._jobFolder())
        finally:
            self._rememberSummary()

    def _publishHyperparameters(self):
        if "outputHyperparameters" not in self._outputNames():
            return []
        hyperparameters = MotionHyperparameters()
        hyperparameters.setRecord(self._results().hyperparameters())
        hyperparameters.setFileName(str(self._layout().hyperparameters))
        self._publish("outputHyperparameters", hyperparameters, self.inputMovies)
        return [hyperparameters.getFileName()]

    def _publish(self, name, item, *sources):
        """Define an output as soon as it exists."""
        self._defineOutputs(**{name: item})
        for source in sources:
            self._defineSourceRelation(source, item)

    def _rememberSummary(self):
        """Numbers that are slow to gather are kept as text for the summary."""
        self.summaryVar.set("\n".join(run_summary.numbers(self._jobFolder(), self._lastStage() == LAST_STAGE)))
        self._store(self.summaryVar)
