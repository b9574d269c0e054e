"""Scipion windows over figures made from the engine's results."""
from .viewer_average_movies import AverageMoviesViewer
from .viewer_objects import DoseWeightsViewer, HyperparametersViewer
from .viewer_reference_motion_correction import ReferenceMotionCorrectionViewer
