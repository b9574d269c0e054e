"""Scipion protocols: forms, and steps that start the engine."""
from .protocol_reference_motion_correction import ProtReferenceMotionCorrection
