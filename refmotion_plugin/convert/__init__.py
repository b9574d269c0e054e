"""Scipion sets -> files of a job, and results of a job -> Scipion sets. Nothing else knows both."""
from .acquisition import initial_dose, optics_rows, require_exposures
from .advice import coordinate_fit, even_box, frame_summary, map_extent
from .from_relion import RelionProject, fill_movies, fill_particles_from_star
from .geometry import angles_and_origins, set_origin
from .growing import Batches, Look, Watch, is_open, matches_of, reopened
from .maps import half_map_files, map_file, read_header, with_voxel_size
from .matching import MovieMatch, bare_name, match_movies
from .micrographs import fill_micrographs
from .movies import first_movie, frame_dose, grid_size, read_movies, write_movies
from .producers import gain_is_turned, reading_of
from .outputs import add_particles, fill_particles
from .particles import coordinate_extent_xy, half_sets_present, micrograph_counts, movie_pixel_coordinates, write_particles
from .resolution import map_resolution
from .sets import first_item
