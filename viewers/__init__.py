"""Scipion windows over figures made from the engine's results."""
from .viewer_reference_motion_correction import DoseWeightsViewer, HyperparametersViewer, ReferenceMotionCorrectionViewer
