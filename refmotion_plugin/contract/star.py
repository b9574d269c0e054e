"""RELION's STAR files in and out: the one face of the reading and writing that the modules beside this one do."""
from .star_movies import Micrograph, read_corrected_micrographs, read_movie_metadata
from .star_particles import ParticleSet, match_micrographs, read_particles, write_left_out, write_particles
from .star_results import FrameBfactors, read_bfactors_star, read_relion_sigmas, read_tracks_star, write_bfactors_star, write_tracks_star
from .startable import StarTable, read_table, read_tables, write_tables

__all__ = ["FrameBfactors", "Micrograph", "ParticleSet", "StarTable", "match_micrographs", "read_bfactors_star",
           "read_corrected_micrographs", "read_movie_metadata", "read_particles", "read_relion_sigmas", "read_table",
           "read_tables", "read_tracks_star", "write_bfactors_star", "write_left_out", "write_particles",
           "write_tables", "write_tracks_star"]
