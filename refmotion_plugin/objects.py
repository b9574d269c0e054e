"""Results that Scipion stores as outputs and offers as inputs of later runs."""
from pwem.objects import EMObject
from pyworkflow.object import Boolean, Float, Integer, String

from .contract.records import Hyperparameters


class _ObjectWithFile(EMObject):
    """A few numbers for people, and the file (relative to the project) that holds everything for the engine."""

    def __init__(self, **kwargs):
        EMObject.__init__(self, **kwargs)
        self._filename = String()

    def getFileName(self):
        """Path relative to the project folder."""
        return self._filename.get()

    def setFileName(self, path):
        """Path relative to the project folder."""
        self._filename.set(path)

    def getFiles(self):
        """Files that must travel with the object."""
        return {self.getFileName()} if self.getFileName() else set()


class MotionHyperparameters(_ObjectWithFile):
    """Strengths of the motion prior; units as in ``contract.records.Hyperparameters``."""

    _UNITS = (("velocitySigma", "velocity_sigma", Float), ("correlationDistance", "correlation_distance_angstrom", Float),
              ("accelerationSigma", "acceleration_sigma", Float), ("earlyFactor", "early_factor", Float),
              ("earlyDose", "early_dose_e_per_A2", Float), ("jitter", "jitter_angstrom", Float),
              ("globalShift", "global_angstrom", Float), ("positionOffset", "offset_angstrom", Float),
              ("kernel", "kernel", String), ("correlatedAcceleration", "correlated_acceleration", Boolean))

    def __init__(self, **kwargs):
        _ObjectWithFile.__init__(self, **kwargs)
        for name, _, kind in self._UNITS:
            setattr(self, "_" + name, kind())

    def setRecord(self, record):
        """Take the values of a ``Hyperparameters`` record."""
        for name, field, _ in self._UNITS:
            getattr(self, "_" + name).set(getattr(record, field))

    def getRecord(self):
        """The values as a ``Hyperparameters`` record."""
        return Hyperparameters(**{field: getattr(self, "_" + name).get() for name, field, _ in self._UNITS})

    def getStrengths(self):
        """(velocity sigma in Å/(e/Å²), correlation distance in Å, acceleration sigma in Å/(e/Å²))."""
        return self._velocitySigma.get(), self._correlationDistance.get(), self._accelerationSigma.get()

    def __str__(self):
        if self._velocitySigma.empty():
            return "MotionHyperparameters (empty)"
        return "MotionHyperparameters (velocity %.3g Å/(e/Å²), distance %.0f Å, acceleration %.3g Å/(e/Å²))" % self.getStrengths()


class EmpiricalDoseWeights(_ObjectWithFile):
    """Weights per frame and frequency measured on the particles."""

    def __init__(self, **kwargs):
        _ObjectWithFile.__init__(self, **kwargs)
        self._frames = Integer()
        self._opticsGroups = Integer()
        self._dose = Float()                    # e/Å², accumulated at the middle of the last frame
        self._finestResolution = Float()        # Å, of the last shell
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
        self._finestResolution.set(1.0 / float(record.frequency_per_angstrom[-1]))
        self._bFactorFirst.set(float(record.b_factor_A2[0, 0]))
        self._bFactorLast.set(float(record.b_factor_A2[0, -1]))
        self._normalisation.set(record.normalisation)
        self._source.set(record.source)

    def getFrames(self):
        """Number of frames."""
        return self._frames.get()

    def __str__(self):
        if self._frames.empty():
            return "EmpiricalDoseWeights (empty)"
        return "EmpiricalDoseWeights (%d frames, %.1f e/Å², to %.2f Å)" % (
            self._frames.get(), self._dose.get(), self._finestResolution.get())
