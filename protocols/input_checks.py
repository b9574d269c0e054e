"""What can be said of the inputs before anything runs: sentences for the form, each with its remedy. No movie is opened."""
import os

from refmotion_plugin import convert
from refmotion_plugin.contract.errors import InputError

_GAIN = ("The gain reference is used as it was imported. If the movie alignment rotated or flipped it, set the same in section Movies: Scipion "
         "does not record it.")
_FLEXALIGN_GAIN = ("FlexAlign reads TIFF movies as they are stored and turns their gain upside down: so will be done here. If it was told to rotate "
                   "or flip the gain besides, set in section Movies how the gain has to be turned in all.")
_COVERED = 0.55     # coordinates that reach no further than this part of the movie in both directions look wrongly scaled


def absent_inputs(protocol):
    """Sentences on optional inputs that were chosen and do not exist yet.

    The host takes them for inputs that were left empty, and would start a scheduled run without them; others it waits for by itself.
    """
    chosen = [protocol.getParam(name) for name, value in protocol.iterDefinitionAttributes()
              if value.isPointer() and value.hasValue() and value.get() is None and protocol.evalParamCondition(name)]
    return ["%s: the output that was chosen does not exist yet. A scheduled run waits for it; choose another one, or none, to go on now."
            % param.label.get() for param in chosen if param.allowsNull]


def errors(protocol, references, coordinate_pixel):
    """Sentences that forbid the run; ``coordinate_pixel(particles)`` gives the A/px of a set's coordinates."""
    absent, movies = absent_inputs(protocol), protocol.inputMovies.get()
    if absent or movies is None or any(r.particles is None or r.volume is None for r in references):
        return absent           # the form itself says which other input is missing
    found = movie_errors(movies) or _crop_errors(movies)
    for reference in references:
        prefix = "Reference %d: " % (reference.index + 1) if len(references) > 1 else ""
        found += [prefix + text for text in _particle_errors(protocol, reference.particles)]
        found += [prefix + text for text in _map_errors(reference)]
        if not found:
            found += [prefix + text for text in _geometry_errors(movies, reference.particles, coordinate_pixel(reference.particles))]
            found += [prefix + text for text in _box_errors(protocol, movies, reference.volume)]
    return found + _duplicate_errors(references)


def movie_errors(movies, each=True):
    """Sentences that forbid a run with these movies; ``each``: all of them are looked at, which takes seconds where there are ten thousands."""
    found = []
    if movies.getSize() == 0:
        return ["The input movies are an empty set: choose a set with movies."]
    first = convert.first_item(movies)
    if first.getAlignment() is None:
        found.append("The input movies have no alignment: run a movie alignment and give its output movies.")
    if not movies.getSamplingRate():
        found.append("The input movies have no pixel size: import them again with it.")
    for check in [convert.require_exposures] * each + [convert.first_movie]:
        try:
            check(movies)
        except InputError as error:
            found.append(sentence(str(error)))
    return found


def sentence(text):
    """A reason of the contract, which keeps to plain letters, as a form shows it; a path that it begins with stays as it is."""
    first = text[:1].upper() if text.partition(" ")[0].isalpha() else text[:1]
    return first + text[1:].replace("e/A^2", "e/Å²").replace("(A)", "(Å)") + "."


def _crop_errors(movies):
    """Coordinates were picked on the cropped micrographs, and nothing says how those lie on the movies."""
    first = convert.first_movie(movies)
    if first is None or not first.roi:
        return []
    return ["The movie alignment cropped the micrographs (x %d, y %d, %d x %d px): coordinates picked on them do not fit the movies. Align without "
            "cropping." % first.roi]


def streaming_errors(protocol, spec):
    """Sentences that forbid a run while its inputs still grow: what needs all movies together must be known already."""
    missing = []
    if protocol.inputDoseWeights.get() is None:
        missing.append("dose weights (Results of earlier runs)")
    if spec.wants_search:
        missing.append("hyperparameters or strengths instead of a search")
    if spec.output.stop_after != "particles":
        missing.append("particles as the final processing stage")
    if spec.output.reconstruct:
        missing.append("no reconstruction (a later run, or 'refmotion reconstruct', makes it of all particles)")
    if not missing:
        return []
    return ["The input movies or particles still grow, and a run on a part of them would not be that of the whole: give %s, or wait until the "
            "inputs are complete (a scheduled run waits by itself)." % " and ".join(missing)]


def _particle_errors(protocol, particles):
    first = convert.first_item(particles)
    if first is None:
        return ["The input particles are an empty set: choose a set with particles."]
    found = []
    if not particles.hasAlignmentProj() or first.getTransform() is None:
        found.append("The input particles have no orientations: give the particles of a 3D refinement.")
    if first.getCTF() is None:
        found.append("The input particles have no CTF: give particles with a CTF, the reference is compared through it.")
    if first.getCoordinate() is None:
        found.append("The input particles have no coordinates: give particles that were extracted from micrographs.")
    if not convert.half_sets_present(particles) and not protocol.halfSetsFromOrder.get():
        found.append("The input particles have no half-sets (_rlnRandomSubset is 1 or 2): give the particles of the gold-standard "
                     "refinement that made the half-maps. Without them dose weights are not independent of the map; if you accept "
                     "that, choose to make half-sets up (advanced, section Movies).")
    return found


def _map_errors(reference):
    halves = convert.half_map_files(reference.volume)
    if len(halves) != 2:
        return ["The input volume has no two half-maps: give the volume of a gold-standard refinement, or set its half-maps at import."]
    maps = dict(zip(("Half-map 1", "Half-map 2"), halves))
    if reference.mask is not None:
        maps["The mask"] = convert.map_file(reference.mask.getFileName())
    headers, found = {}, []
    for name, path in maps.items():
        if not os.path.exists(path):
            found.append("%s does not exist: %s." % (name, path))
            continue
        try:
            headers[name] = convert.read_header(path)
        except (OSError, ValueError) as error:
            found.append("%s %s cannot be read as MRC (%s): give an MRC file." % (name, path, error))
    if found:
        return found
    return _shape_errors(headers) + _pixel_errors(reference)


def _shape_errors(headers):
    shape = headers["Half-map 1"].shape_zyx
    if len(set(shape)) != 1:
        return ["Half-map 1 is %s px: a cube was expected, pad or crop it." % " x ".join(map(str, shape))]
    return ["%s has a box of %s px, but half-map 1 of %d px: give maps of the same box."
            % (name, " x ".join(map(str, header.shape_zyx)), shape[0])
            for name, header in headers.items() if header.shape_zyx != shape]


def _pixel_errors(reference):
    pixel, found = reference.volume.getSamplingRate(), []
    mask, particles = reference.mask, reference.particles
    if mask is not None and abs(mask.getSamplingRate() - pixel) > 1e-3 * pixel:
        found.append("The mask has %.4f Å/px, but the volume %.4f: give a mask on the grid of the volume." % (mask.getSamplingRate(), pixel))
    extent, box = _extent(reference.volume), (particles.getDim() or (0,))[0] * particles.getSamplingRate()
    if extent and box and not 0.5 < extent / box < 2.0:
        found.append("The volume is %.0f Å wide, but the particle images %.0f Å: one of the two pixel sizes is wrong, or the volume "
                     "belongs to other particles." % (extent, box))
    return found


def _extent(volume):
    header = convert.read_header(convert.half_map_files(volume)[0])
    return header.shape_zyx[0] * volume.getSamplingRate()


def _geometry_errors(movies, particles, coordinate_pixel):
    """Do the particles belong to these movies, and lie on them?"""
    match = match_of(movies, particles)
    if not match.matched:
        return ["None of the particles belongs to one of the movies: %s. Give the movies that the particles were picked from."
                % match.sentence()]
    width, height = convert.grid_size(movies)
    x, y = (v * coordinate_pixel / movies.getSamplingRate() for v in convert.coordinate_extent_xy(particles))
    if x > width or y > height:
        return ["Coordinates reach (%.0f, %.0f) movie px, but the movies are %d x %d px: coordinates of %.4f Å/px do not fit; give "
                "their pixel size (advanced, section Movies; particles from RELION STAR files often keep micrograph pixels, "
                "%.4f Å)." % (x, y, width, height, coordinate_pixel, movies.getSamplingRate())]
    return []


def _box_errors(protocol, movies, volume):
    """Is the box of the form, or else that of the map, large enough to be cropped? The spec compares the form's two."""
    crop, box = protocol.cropBoxSize.get(), convert.even_box(convert.map_extent(volume), movies.getSamplingRate())
    if not crop or protocol.boxSize.get() or crop <= box:
        return []
    return ["The crop box of %d px is larger than the box it is cropped from, which without a number is as wide as the map: %d px. Give a "
            "smaller one, or a larger box." % (crop, box)]


def match_of(movies, particles):
    """MovieMatch of a particle set."""
    names = {movie.getObjId(): movie.getMicName() for movie in movies}
    return convert.match_movies(names, convert.micrograph_counts(particles))


def require_particles(matches, movies):
    """Raises InputError if a reference has no particle in these movies (ids); ``matches`` holds the MovieMatch of each."""
    for number, match in enumerate(matches, start=1):
        if not set(movies).intersection(match.movie_of.values()):
            raise InputError("Reference %d: none of its particles belongs to one of the movies: give the movies that they were picked from, or "
                             "leave the reference out" % number)


def _duplicate_errors(references):
    ids = [r.particles.getObjId() for r in references]
    if len(set(ids)) < len(ids):
        return ["Two references have the same input particles: give each reference its own particle set."]
    return []


def warnings(protocol, references):
    """Sentences the user is asked to accept."""
    movies = protocol.inputMovies.get()
    if movies is None:
        return []
    found = _search_warnings(protocol) + movie_warnings(protocol, movies)
    for reference in references:
        if reference.particles is not None:
            found += _particle_warnings(protocol, movies, reference.particles)
        if reference.volume is not None:
            found += _voxel_warnings(reference.volume)
    return found


def _voxel_warnings(volume):
    """Headers that say another voxel size than the set; 0 and 1 are what programs write that do not know it."""
    pixel, found = volume.getSamplingRate(), []
    for path in convert.half_map_files(volume):
        try:
            voxel = convert.read_header(path).voxel_angstrom
        except (OSError, ValueError):
            continue
        if voxel not in (0.0, 1.0) and abs(voxel - pixel) > 1e-3 * pixel:
            found.append("The header of half-map %s says %.4f Å/px, but the volume has %.4f, which will be used: if the volume was imported with "
                         "a wrong pixel size, import it again." % (os.path.basename(path), voxel, pixel))
    return found


def _search_warnings(protocol):
    """A search that was asked for beside what makes it needless."""
    if not protocol.searchThoroughness.get():
        return []
    given = [("hyperparameters of an earlier run are given (section Input)", protocol.inputHyperparameters.get() is not None),
             ("strengths are given", protocol.velocitySigma.get()), ("the input motion is kept (advanced)", protocol.rigidOnly.get())]
    return ["The strengths will not be searched, since %s." % " and ".join(reason for reason, so in given if so)] if any(so for _, so in given) else []


def movie_warnings(protocol, movies):
    """Sentences about the movies alone."""
    if movie_errors(movies, each=False):
        return []
    found = _gain_warnings(protocol, movies)
    if all(row.is_interpolated for row in convert.read_movies(movies)[0]):
        found.append("All shifts of the movies are zero: they seem to be aligned stacks that a protocol saved. Interpolated frames give "
                     "worse particles: better give the original movies with their alignment.")
    return found


def crop_warnings(movies):
    """What averages of the whole frame mean where the alignment cropped."""
    if movie_errors(movies, each=False) or not convert.first_movie(movies).roi:
        return []
    return ["The movie alignment cropped its micrographs; these will show the whole frame, so coordinates picked on those do not fit them."]


def _gain_warnings(protocol, movies):
    found = []
    if movies.getGain() and not convert.gain_is_turned(movies) and not protocol.gainFile.get() and not protocol.gainRotation.get() and not protocol.gainFlip.get():
        found.append(_FLEXALIGN_GAIN if "gain_flip" in convert.reading_of(movies) else _GAIN)
    if movies.getDark():
        found.append("The movies have a dark reference, which is not used: counting cameras need none.")
    return found


def _particle_warnings(protocol, movies, particles):
    match, found = match_of(movies, particles), []
    if match.unmatched:
        found.append("%s. They will be missing in the output." % match.sentence())
    if match.by["id"]:
        found.append("%d particles were matched with movies by number, since their micrographs' names are no movie's: check that both "
                     "come from the same import." % match.by["id"])
    width, height = convert.grid_size(movies)
    scale = protocol._coordinatePixel(particles) / movies.getSamplingRate()
    x, y = convert.coordinate_extent_xy(particles)
    if particles.getSize() > 50 and x * scale < _COVERED * width and y * scale < _COVERED * height:
        found.append("The coordinates cover only %.0f x %.0f of %d x %d movie px: their pixel size may be wrong (advanced, section Movies)."
                     % (x * scale, y * scale, width, height))
    if not convert.half_sets_present(particles):
        found.append("Half-sets are made up: the dose weights are not independent of the map.")
    return found
