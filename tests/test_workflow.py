"""A small workflow for Scipion's own test command, which knows unittest alone; pytest runs it too.

    scipion3 tests refmotion_plugin.tests.test_workflow.TestReferenceMotionCorrection
"""
import importlib.util
import os
import subprocess
import unittest

try:
    import pyworkflow
    pyworkflow.Config.setDomain("pwem")
    from pwem.protocols import ProtImportMask, ProtImportVolumes
    from pyworkflow.tests import BaseTest, setupTestProject
except ModuleNotFoundError as error:        # an interpreter with the engine alone
    raise unittest.SkipTest("Scipion is not installed in this interpreter: %s" % error) from None

from refmotion_plugin.headless import ensure_hosts
from refmotion_plugin.protocols import ProtAverageMovies, ProtImportRelionMovies, ProtReferenceMotionCorrection
from refmotion_plugin.scipion_plugin import Plugin

PIXEL, MOVIES, PARTICLES = 1.1, 2, 14

if importlib.util.find_spec("pytest"):      # Scipion's own environment may lack it
    import pytest
    pytestmark = pytest.mark.slow


class TestReferenceMotionCorrection(BaseTest):
    """Simulated movies through the import, the correction and the averages."""

    @classmethod
    def setUpClass(cls):
        ensure_hosts()
        setupTestProject(cls)
        pyworkflow.Config.getDomain().getProtocols()        # binds the protocols to the plugin
        cls.data = os.path.join(cls.proj.path, "simulated")
        os.makedirs(cls.data)
        subprocess.check_call('%s simulate . --movies %d --particles %d --frames 10 --size-yx 512 512 --box 96 --dose-per-frame 2.4 '
                              '--contrast-scale 2 --seed 3' % (Plugin.getEngineProgram(), MOVIES, PARTICLES), shell=True, cwd=cls.data)

    def run_protocol(self, protocol_class, **inputs):
        """Run a protocol to its end; the base class raises if it fails."""
        protocol = self.newProtocol(protocol_class, **{k: v for k, v in inputs.items() if not isinstance(v, tuple)})
        for name, value in inputs.items():
            if isinstance(value, tuple):
                getattr(protocol, name).set(value[0])
                getattr(protocol, name).setExtended(value[1])
        self.launchProtocol(protocol, wait=True)
        return protocol

    def test_workflow(self):
        imported = self.run_protocol(ProtImportRelionMovies, projectFolder=self.data, particlesStar="particles.star",
                                     moviesStar=os.path.join("MotionCorr", "corrected_micrographs.star"))
        half1, half2, mask = (os.path.join(self.data, name + ".mrc") for name in ("half1", "half2", "mask"))
        volume = self.run_protocol(ProtImportVolumes, filesPath=half1, samplingRate=PIXEL, setHalfMaps=True, half1map=half1, half2map=half2)
        masks = self.run_protocol(ProtImportMask, maskPath=mask, samplingRate=PIXEL)
        correction = self.run_protocol(ProtReferenceMotionCorrection, inputMovies=(imported, "outputMovies"),
                                       inputParticles=(imported, "outputParticles"), inputVolume=(volume, "outputVolume"),
                                       inputMask=(masks, "outputMask"), useGpu=False, numberOfThreads=1)
        self.assertSetSize(correction.outputParticles, MOVIES * PARTICLES)
        averages = self.run_protocol(ProtAverageMovies, inputMovies=(imported, "outputMovies"), useGpu=False, numberOfThreads=1,
                                     inputDoseWeights=(correction, "outputDoseWeights"))
        self.assertSetSize(averages.outputMicrographsDoseWeighted, MOVIES)


if __name__ == "__main__":
    unittest.main()
