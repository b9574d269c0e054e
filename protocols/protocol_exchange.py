"""Dose weights and hyperparameters from and to the files of this and of other programs."""
import hashlib
import os

from pwem.protocols import EMProtocol, ProtImport
from pyworkflow import BETA
from pyworkflow.protocol import params

from refmotion_plugin import convert
from refmotion_plugin.contract import exchange, store
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import file_stamp
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters

from . import input_checks
from .engine_process import fingerprint_of

WEIGHT_CHOICES = (("none", None), ("weights.npz: as our jobs write them", ".npz"), ("weights.json: to read and edit", ".json"),
                  ("bfactors.star: RELION, B-factor and scale per frame", ".star"), ("refm_empirical_dw.npy: CryoSPARC", ".npy"))
HYPERPARAMETER_CHOICES = (("none", None), ("hyperparameters.json: as our jobs write them", ".json"),
                          ("opt_params_all_groups.txt: RELION, three sigmas", ".txt"))


def _add_movie_numbers(form, title, what_for, pixel_condition=None):
    """A group with movies that say dose and pixel size, and fields that say it without them; returns it."""
    group, shown = form.addGroup(title), {"condition": pixel_condition} if pixel_condition else {}
    group.addParam("inputMovies", params.PointerParam, pointerClass="SetOfMovies", allowsNull=True, label="Movies", help=what_for)
    group.addParam("dosePerFrame", params.FloatParam, allowsNull=True, label="Dose per frame (e/Å²)", help="Empty: that of the movies.")
    group.addParam("preExposure", params.FloatParam, allowsNull=True, label="Dose before the first frame (e/Å²)",
                   help="Empty: that of the movies; without movies 0.")
    group.addParam("pixelSize", params.FloatParam, allowsNull=True, label="Pixel size CryoSPARC worked at (Å)",
                   help="Only for CryoSPARC's file, whose bins go from 0 to twice the Nyquist frequency of this pixel: that of the "
                        "particles of its job, psize_A in its hyperparams.cs. Empty: that of the movies.", **shown)
    return group


def _exposure(protocol):
    """Exposure of the form's numbers or of its movies; none without a dose."""
    movies = protocol.inputMovies.get()
    acquisition = movies.getAcquisition() if movies is not None else None
    dose, before = protocol.dosePerFrame.get(), protocol.preExposure.get()
    if dose is None and acquisition is not None:
        dose = convert.frame_dose(movies)
    if before is None and acquisition is not None:
        before = convert.initial_dose(movies)
    if before and not dose:
        raise InputError("The dose before the first frame alone says nothing of the frames' doses: give the dose per frame too")
    return exchange.Exposure(dose, before or 0.0) if dose else None


def _pixel(protocol):
    movies = protocol.inputMovies.get()
    return protocol.pixelSize.get() or (movies.getSamplingRate() if movies is not None else None)


def _voltage(protocol):
    movies = protocol.inputMovies.get()
    return movies.getAcquisition().getVoltage() if movies is not None else None


def _key(protocol, path=None):
    """Hash of the form, of its inputs and of the file that is read: a finished step is kept on Continue while this is the same."""
    parts = [file_stamp(path)]
    for name, attribute in protocol.iterDefinitionAttributes():
        value = fingerprint_of(attribute) if attribute.isPointer() else attribute.get()
        if name not in ("runName", "runMode"):
            parts.append((name, value))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _sentences(action):
    """What ``action`` finds wrong, as a form shows it."""
    try:
        action()
    except InputError as error:
        return [input_checks.sentence(str(error))]
    return []


def _lost_of_weights(weights, group, ending):
    """What a file of dose weights leaves out, sentences."""
    groups, lost = len(weights.weight), []
    if groups > 1 and ending not in (".npz", ".json"):
        lost.append("This format holds one optics group: it is number %d of %d." % (group + 1, groups))
    if ending == ".star":
        lost.append("Its B-factors describe these weights to within %.1f %% of the mean weight up to 3 Å." % (100 * exchange.b_factor_misfit(weights, group)))
    return lost


def _lost_of_hyperparameters(record, ending):
    """What a file of hyperparameters leaves out, sentences."""
    lost = exchange.lost_in_relion(record) if ending == ".txt" else []
    return ["RELION's prior has no %s: the same strengths mean another prior there." % ", ".join(name.replace("_", " ") for name in lost)] if lost else []


class ProtImportDoseWeights(ProtImport):
    """ Imports dose weights from a file of this plugin, of RELION or of CryoSPARC, as input of motion correction or averaging. """
    _label = "import dose weights"
    _devStatus = BETA
    _possibleOutputs = {"outputDoseWeights": EmpiricalDoseWeights}

    def _defineParams(self, form):
        form.addSection(label="Import")
        form.addParam("weightsFile", params.FileParam, label="File", important=True,
                      help="weights.npz or weights.json of this plugin, bfactors.star of a RELION polishing job, or refm_empirical_dw.npy "
                           "of CryoSPARC's reference based motion correction; the ending of the name says which.")
        _add_movie_numbers(form, "What the file does not say",
                           "The movies that the weights were measured on. RELION's and CryoSPARC's files know frames only: they "
                           "need the dose per frame; CryoSPARC's needs the pixel size too.")

    def _insertAllSteps(self):
        self._insertFunctionStep(self.importStep, _key(self, self.weightsFile.get()), needsGPU=False)

    def importStep(self, key):
        """Read the file, keep its content as weights.npz."""
        record, kept = self._read(), self._getExtraPath("weights.npz")
        store.save_weights(kept, record)
        text, odd = exchange.damage_sentence(record, 0, _voltage(self))
        self.summaryVar.set(text)
        self._store(self.summaryVar)
        if odd:
            self.warning(text)
        weights = EmpiricalDoseWeights()
        weights.setRecord(record)
        weights.setFileName(kept)
        self._defineOutputs(outputDoseWeights=weights)
        if self.inputMovies.get() is not None:
            self._defineSourceRelation(self.inputMovies, weights)

    def _read(self):
        return exchange.read_weights(self.weightsFile.get(), _exposure(self), _pixel(self))

    @classmethod
    def validateInstallation(cls):
        """Nothing of the engine is needed here."""
        return []

    def _validate(self):
        if not self.weightsFile.get():
            return ["Give the file with the dose weights."]
        return input_checks.absent_inputs(self) or _sentences(self._read)

    def _summary(self):
        weights = getattr(self, "outputDoseWeights", None)
        return [str(weights)] + [text for text in [self.summaryVar.get()] if text] if weights is not None else []


class ProtImportHyperparameters(ProtImport):
    """ Imports hyperparameters of the motion prior from a file of this plugin or of RELION. """
    _label = "import motion hyperparameters"
    _devStatus = BETA
    _possibleOutputs = {"outputHyperparameters": MotionHyperparameters}

    def _defineParams(self, form):
        form.addSection(label="Import")
        form.addParam("hyperparametersFile", params.FileParam, label="File", important=True,
                      help="hyperparameters.json of this plugin, or opt_params*.txt of a RELION training run. RELION's sigmas become "
                           "RELION's prior, with strengths times 0.8 because RELION counts them differently.")

    def _insertAllSteps(self):
        self._insertFunctionStep(self.importStep, _key(self, self.hyperparametersFile.get()), needsGPU=False)

    def importStep(self, key):
        """Read the file, keep its content as hyperparameters.json."""
        record, kept = self._read(), self._getExtraPath("hyperparameters.json")
        exchange.write_hyperparameters(kept, record)
        hyperparameters = MotionHyperparameters()
        hyperparameters.setRecord(record)
        hyperparameters.setFileName(kept)
        self._defineOutputs(outputHyperparameters=hyperparameters)

    def _read(self):
        return exchange.read_hyperparameters(self.hyperparametersFile.get())

    @classmethod
    def validateInstallation(cls):
        """Nothing of the engine is needed here."""
        return []

    def _validate(self):
        return _sentences(self._read) if self.hyperparametersFile.get() else ["Give the file with the hyperparameters."]

    def _summary(self):
        found = getattr(self, "outputHyperparameters", None)
        return [str(found)] if found is not None else []


class ProtExportMotionResults(EMProtocol):
    """ Writes dose weights and hyperparameters as files for this program's command line, RELION or CryoSPARC. """
    _label = "export dose weights and hyperparameters"
    _devStatus = BETA

    def _defineParams(self, form):
        form.addSection(label="Export")
        group = form.addGroup("Dose weights")
        group.addParam("inputDoseWeights", params.PointerParam, pointerClass="EmpiricalDoseWeights", allowsNull=True, label="Dose weights",
                       help="Of a motion correction or of an import. Empty: none are written.")
        group.addParam("weightsFormat", params.EnumParam, choices=[text for text, _ in WEIGHT_CHOICES], default=1, label="Format of the weights",
                       help="RELION's format keeps one B-factor and one scale per frame: it is lossy. CryoSPARC's is a table of numbers: to use "
                            "it there, replace the file of a job that computed dose weights by it, with the same frames and bins.")
        group.addParam("opticsGroup", params.IntParam, default=1, label="Optics group", expertLevel=params.LEVEL_ADVANCED,
                       help="Counted from 1. RELION's and CryoSPARC's formats hold one.")
        group.addParam("bins", params.IntParam, allowsNull=True, label="Bins", condition="weightsFormat==4",
                       help="Bins of CryoSPARC's file that this one shall replace. Empty: twice as fine as the weights are.")
        group = form.addGroup("Hyperparameters")
        group.addParam("inputHyperparameters", params.PointerParam, pointerClass="MotionHyperparameters", allowsNull=True, label="Hyperparameters",
                       help="Of a motion correction or of an import. Empty: none are written.")
        group.addParam("hyperparametersFormat", params.EnumParam, choices=[text for text, _ in HYPERPARAMETER_CHOICES], default=1,
                       label="Format of the hyperparameters", help="RELION's prior has three strengths only: it is lossy.")
        form.addParam("folder", params.FolderParam, default="", label="Folder",
                      help="Where the files are written; files of these names in it are replaced. Empty: the folder of this run.")
        group = _add_movie_numbers(form, "For frames of another dose",
                                   "Movies that the weights are for. With a dose per frame the weights are written for frames of that dose.", "weightsFormat==4")
        group.addParam("frames", params.IntParam, allowsNull=True, label="Number of frames", help="Empty: as the weights have.")

    def _insertAllSteps(self):
        self._insertFunctionStep(self.exportStep, _key(self), needsGPU=False)

    def exportStep(self, key):
        """Write the files."""
        text, (of_weights, of_hyperparameters) = [], self._endings()
        if of_weights:
            path, weights, group = self._pathOf(exchange.WEIGHT_FORMATS[of_weights]), self._weights(), self.opticsGroup.get() - 1
            exchange.write_weights(path, weights, group, _pixel(self), self.bins.get(), _voltage(self))
            text += ["Written: %s" % path] + _lost_of_weights(weights, group, of_weights)
        if of_hyperparameters:
            path = self._pathOf(exchange.HYPERPARAMETER_FORMATS[of_hyperparameters])
            record = store.load_hyperparameters(self.inputHyperparameters.get().getFileName())
            exchange.write_hyperparameters(path, record)
            text += ["Written: %s" % path] + _lost_of_hyperparameters(record, of_hyperparameters)
        self.summaryVar.set("\n".join(text))
        self._store(self.summaryVar)

    def _endings(self):
        """Endings of the files of dose weights and of hyperparameters; None for what is not given or not wanted."""
        chosen = ((self.inputDoseWeights, WEIGHT_CHOICES[self.weightsFormat.get()]),
                  (self.inputHyperparameters, HYPERPARAMETER_CHOICES[self.hyperparametersFormat.get()]))
        return [ending if pointer.get() is not None else None for pointer, (_, ending) in chosen]

    def _weights(self):
        weights = store.load_weights(self.inputDoseWeights.get().getFileName())
        return exchange.for_exposure(weights, _exposure(self), self.frames.get())

    def _pathOf(self, name):
        return os.path.join(self.folder.get() or self._getExtraPath(), name)

    @classmethod
    def validateInstallation(cls):
        """Nothing of the engine is needed here."""
        return []

    def _validate(self):
        absent, weights, hyperparameters = input_checks.absent_inputs(self), self.inputDoseWeights.get(), self.inputHyperparameters.get()
        if absent:
            return absent
        if weights is None and hyperparameters is None:
            return ["Nothing to export: give dose weights, hyperparameters or both."]
        if not any(self._endings()):
            return ["Nothing to export: choose a format for what is given."]
        found = []
        if weights is not None:
            found += _sentences(self._weights)
            count = weights.getOpticsGroups()
            if not 1 <= self.opticsGroup.get() <= count:
                found.append("The dose weights have %d optics groups: give 1 to %d." % (count, count))
            if WEIGHT_CHOICES[self.weightsFormat.get()][1] == ".npy" and not _pixel(self):
                found.append("CryoSPARC's format needs a pixel size: give it, or movies.")
        if self.folder.get() and not os.path.isdir(self.folder.get()):
            found.append("%s is not a folder: give one that exists." % self.folder.get())
        return found

    def _summary(self):
        kept = self.summaryVar.get()
        return kept.split("\n") if kept else []
