"""Scipion protocols: forms, and steps that start the engine."""
from .protocol_average_movies import ProtAverageMovies
from .protocol_exchange import ProtExportMotionResults, ProtImportDoseWeights, ProtImportHyperparameters
from .protocol_import_relion_project import ProtImportRelionMovies
from .protocol_reference_motion_correction import ProtReferenceMotionCorrection
