"""Results that Scipion stores as outputs and offers as inputs of later runs."""
from dataclasses import fields

from pwem.objects import EMObject
from pyworkflow.object import Boolean, Float, Integer, String

from .contract.records import Hyperparameters


class _WithFile:
    """A few numbers for people, and the file (relative to the project) that holds everything for the engine.

    Not an EMObject itself: the host would take it for an object of its own.
    """

    def getFileName(self):
        """Path relative to the project folder."""
        return self._filename.get()

    def setFileName(self, path):
        """Path relative to the project folder."""
        self._filename.set(path)

    def getFiles(self):
        """Files that must travel with the object."""
        return {self.getFileName()} if self.getFileName() else set()


class MotionHyperparameters(_WithFile, EMObject):
    """Strengths of the motion prior: the fields of ``contract.records.Hyperparameters`` under their own names and units."""

    _KINDS = {float: Float, str: String, bool: Boolean}

    def __init__(self, **kwargs):
        EMObject.__init__(self, **kwargs)
        self._filename = String()
        for field in fields(Hyperparameters):
            setattr(self, "_" + field.name, self._KINDS[field.type]())

    def setRecord(self, record):
        """Take the values of a ``Hyperparameters`` record."""
        for field in fields(Hyperparameters):
            getattr(self, "_" + field.name).set(getattr(record, field.name))

    def holds(self, record):
        """Whether the values are those of a ``Hyperparameters`` record."""
        return all(getattr(self, "_" + field.name).get() == getattr(record, field.name) for field in fields(Hyperparameters))

    def getStrengths(self):
        """(velocity sigma in Å/(e/Å²), correlation distance in Å, acceleration sigma in Å/(e/Å²))."""
        return self._velocity_sigma.get(), self._correlation_distance_angstrom.get(), self._acceleration_sigma.get()

    def __str__(self):
        if not self._velocity_sigma.hasValue():
            return "MotionHyperparameters (empty)"
        return "MotionHyperparameters (%s)" % self.inWords()

    def inWords(self):
        """The three strengths with their units."""
        return "velocity %.3g, acceleration %.3g Å per e/Å²; distance %.0f Å" % tuple(self.getStrengths()[i] for i in (0, 2, 1))


class EmpiricalDoseWeights(_WithFile, EMObject):
    """Weights per frame and frequency measured on the particles."""

    def __init__(self, **kwargs):
        EMObject.__init__(self, **kwargs)
        self._filename = String()
        self._frames = Integer()
        self._opticsGroups = Integer()
        self._dose = Float()                    # e/Å², accumulated at the middle of the last frame
        self._bFactorFirst = Float()            # Å², amplitudes fall as exp(-B k²/4)
        self._bFactorLast = Float()
        self._normalisation = String()
        self._source = String()

    def setRecord(self, record):
        """Take the summary of a ``DoseWeights`` record; the first optics group stands for the B-factors."""
        groups, frames = record.b_factor_A2.shape
        self._frames.set(int(frames))
        self._opticsGroups.set(int(groups))
        self._dose.set(float(record.dose_e_per_A2[-1]))
        self._bFactorFirst.set(float(record.b_factor_A2[0, 0]))
        self._bFactorLast.set(float(record.b_factor_A2[0, -1]))
        self._normalisation.set(record.normalisation)
        self._source.set(record.source)

    def getFrames(self):
        """Number of frames."""
        return self._frames.get()

    def getOpticsGroups(self):
        """Number of optics groups."""
        return self._opticsGroups.get()

    def __str__(self):
        if not self._frames.hasValue():
            return "EmpiricalDoseWeights (empty)"
        return "EmpiricalDoseWeights (%s)" % self.inWords()

    def inWords(self):
        """Frames, dose at the middle of the last and B-factors, with their units."""
        return "%d frames, the last at %.1f e/Å², B-factor %.0f to %.0f Å²" % (
            self._frames.get(), self._dose.get(), self._bFactorFirst.get(), self._bFactorLast.get())
