"""Steps of a protocol whose inputs still grow: movies are taken in batches, each batch is a step, outputs are open until the end.

The first step closes the outputs; it waits for all others. So batches keep their place in the list of steps, and after a stop Continue
finds those that are finished.
"""
import os
import time

from pyworkflow.object import Set
from pyworkflow.protocol import STATUS_NEW, params
from pyworkflow.utils import cleanPath

from refmotion_plugin import convert


def add_streaming_fields(form, first_particles=None):
    """What decides how growing inputs are cut into batches; ``first_particles``: default of the size of the first, for inputs with particles."""
    form.addSection(label="Streaming")
    form.addParam("batchMovies", params.IntParam, default=20, label="Movies per batch", validators=[params.Positive],
                  help="While the inputs still grow, movies are processed and their outputs published in batches. A batch begins when so "
                       "many movies are ready, or when no further one has come for the time below. Larger batches cost less: the "
                       "program is started once for each.")
    form.addParam("batchPatience", params.FloatParam, default=60.0, label="Wait for more movies (s)",
                  help="A batch that is not full begins after this time without a new movie.")
    if first_particles:
        form.addParam("firstParticles", params.IntParam, default=first_particles, label="Particles in the first batch",
                      expertLevel=params.LEVEL_ADVANCED, validators=[params.Positive],
                      help="The first batch waits for so many particles: the amplitude of the reference, measured on it, serves all "
                           "later ones.")


class StreamingSteps:
    """Mixed into a protocol before its base class. The protocol says:

    ``_streamPointers()`` its inputs of movies and of particles, in this order; ``_streamFiles()`` names of its outputs' files;
    ``_digest(grows)`` hash of its parameters and inputs; ``_streamBatch(movies)`` process the movies with these ids besides the earlier ones, and
    publish what is new; ``_streamEnd()`` what is left to do when nothing more comes.
    """

    def _isStreaming(self):
        """True if an input still grows, or if this run began when one did."""
        if any(convert.is_open(p) for p in self._streamPointers()):
            return True
        return self.workingDir.hasValue() and convert.Batches.belong_to(self._batchesFile(), self._streamKey())

    def _streamKey(self):
        return self._digest(grows=True)

    def _outputKey(self):
        """Hash of what decides the outputs, the first argument of every step."""
        return self._streamKey() if self._isStreaming() else self._digest()

    def _insertStreamingSteps(self):
        key = self._streamKey()
        if not convert.Batches.belong_to(self._batchesFile(), key):
            cleanPath(self._getExtraPath("inputs"), *[self._getPath(name) for name in self._streamFiles()])
        self._batches = convert.Batches(self._batchesFile(), key, self.batchMovies.get(), self.batchPatience.get(),
                                        self.getAttributeValue("firstParticles", 1))
        self._watch = convert.Watch(*[p.get() for p in self._streamPointers()])
        self._closing = len(self._steps)
        # The time makes it a new step each time: it is cheap, and on Continue it has to run again after the batches that follow.
        self._insertFunctionStep(self.closeStreamStep, key, repr(time.time()), wait=True, needsGPU=False, prerequisites=[])
        self._batchSteps = []
        for movies in self._batches.taken:
            self._insertBatch(key, sorted(movies))

    def _insertBatch(self, key, movies):
        self._batchSteps.append(self._insertFunctionStep(self.streamBatchStep, key, movies, needsGPU=True, prerequisites=self._batchSteps[-1:]))

    def _stepsCheck(self):
        """Called by the host every few seconds: new batches, and the end."""
        if getattr(self, "_watch", None) is None:
            return
        look = self._watch.look()
        if look is None:
            return
        for movies in self._batches.take(look):
            self._insertBatch(self._batches.key, movies)
        closing = self._steps[self._closing]
        if self._batches.exhausted(look) and closing.isWaiting():
            closing.addPrerequisites(*self._batchSteps)
            closing.setStatus(STATUS_NEW)
        if self._newSteps:
            self.updateSteps()

    # --------------------------- STEPS functions -----------------------------
    def streamBatchStep(self, key, movies):
        """Process some movies and publish what became of them."""
        self._streamBatch(movies)

    def closeStreamStep(self, key, now):
        """Nothing more will come: close the outputs."""
        self._streamEnd()
        self._closeOutputSet()

    # --------------------------- UTILS functions -----------------------------
    def _batchesFile(self):
        return self._getExtraPath("inputs", "batches.json")

    def _forgetStream(self):
        """The inputs are written anew, complete: batches of a stream that was would not find theirs in them."""
        cleanPath(self._batchesFile())

    def _growingOutput(self, kind, file_name):
        """The output as it stands, with what an earlier batch or an earlier start of this run put into it."""
        there = os.path.exists(self._getPath(file_name))
        output = kind(filename=self._getPath(file_name))
        if there:
            output.loadAllProperties()
        return output

    def _publishedAny(self, *names):
        """True if one of these outputs holds something."""
        return any(getattr(self, name).getSize() for name in names if self.hasAttribute(name))

    def _publishGrown(self, name, output, source, added):
        """Store the output as open if something was added; the first time with its relation to what it was made of.

        A run that was killed may have written the output's file and not yet its own record of it: that is made up for.
        """
        first = not self.hasAttribute(name)
        if not added and not (first and output.getSize()):
            return
        self._updateOutputSet(name, output, Set.STREAM_OPEN)
        if first:
            self._defineTransformRelation(source, getattr(self, name))
