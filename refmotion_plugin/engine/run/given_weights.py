"""Dose weights from a file, with the frames of movies where the file knows frames by number alone."""
from refmotion_plugin.contract.errors import InputError, MovieError


def read_for_movies(movies, doses_of, read):
    """(what ``read(doses, pixel)`` gives of the first movie that it works with, or None if no movie has usable frames; reasons of the movies without).

    ``doses_of(movie)``: e/A^2 of the frames that are used, (frame,). A number of frames is tried once. Raises the first InputError if
    none fits.
    """
    tried, faults, misfit = set(), [], None
    for movie in movies:
        try:
            doses = doses_of(movie)
            if len(doses) not in tried:
                tried.add(len(doses))
                return read(doses, movie.original_pixel_angstrom), faults
        except MovieError as error:
            faults.append(str(error))
        except InputError as error:         # of another number of frames, or of no use with any movie
            misfit = misfit or error
    if misfit is not None:
        raise misfit
    return None, faults
