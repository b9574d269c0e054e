"""Scipion sets -> files of a job, and results of a job -> Scipion sets. Nothing else knows both."""
from .geometry import angles_and_origins, set_origin
from .matching import MovieMatch, match_movies
from .movies import write_movies
from .particles import movie_pixel_coordinates, write_particles
from .outputs import fill_particles
