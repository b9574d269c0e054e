"""A RELION project's movies and particles -> Scipion sets, with everything this plugin needs."""
import itertools
import json
import os

import numpy as np
from pwem.objects import Acquisition, Coordinate, CTFModel, Movie, MovieAlignment, Particle, Transform
from pyworkflow.object import Float, Integer, String
from pyworkflow.utils import createAbsLink

from ..contract.conventions import relion_eer_upsampling, rotation_matrices
from ..contract.errors import InputError
from ..contract.star import match_micrographs, read_corrected_micrographs, read_movie_metadata, read_particles
from ..contract.startable import StarTable, table_text

_FLOATS = ("rlnCtfBfactor", "rlnCtfScalefactor", "rlnNormCorrection")
_INTEGERS = ("rlnRandomSubset", "rlnOpticsGroup", "rlnGroupNumber", "rlnClassNumber")


class RelionProject:
    """The movies of one motion correction job, read once; paths in its STAR files are relative to ``folder``."""

    def __init__(self, folder, corrected_micrographs):
        self.folder = folder
        micrographs, self.optics = read_corrected_micrographs(corrected_micrographs)
        self.groups = [m.optics_group for m in micrographs]
        self.movies = [read_movie_metadata(self.path(m.metadata_star), m.name, self._voltage()) for m in micrographs]
        _require_one_kind("movies", self.movies, (
            ("pixel size, Å", lambda m: round(m.original_pixel_angstrom, 5)), ("frame size, px", lambda m: m.size_yx[::-1]),
            ("dose per frame, e/Å²", lambda m: round(_dose_per_frame_of_file(m), 5)), ("dose before the first frame, e/Å²", lambda m: round(m.pre_exposure_e_per_A2, 5)),
            ("voltage, kV", lambda m: m.voltage_kilovolt)))
        names = [os.path.basename(m.movie_file) for m in self.movies]
        self.mic_names = [name if names.count(name) == 1 else "%d_%s" % (i, name) for i, name in enumerate(names, start=1)]

    def path(self, name):
        """Absolute path of a file named in a STAR file."""
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            raise InputError("%s does not exist: give the folder in which RELION ran, from which its files are named" % path)
        return os.path.abspath(path)

    def _voltage(self):
        return self.optics.number("rlnVoltage") if self.optics is not None else None

    def acquisition(self):
        """Acquisition of the movies, with the optics table of the list of movies."""
        first = self.movies[0]
        number = self.optics.number if self.optics is not None else lambda column, default: default
        acquisition = Acquisition(
            magnification=50000, voltage=first.voltage_kilovolt, sphericalAberration=number("rlnSphericalAberration", 2.7),
            amplitudeContrast=number("rlnAmplitudeContrast", 0.1), dosePerFrame=_dose_per_frame_of_file(first),
            doseInitial=first.pre_exposure_e_per_A2)
        if self.optics is not None:
            acquisition.opticsGroupInfo.set(table_text(self.optics).strip() + "\n")
        return acquisition

    def of_groups(self, what, value):
        """{optics group: ``value(movie)`` of its movies}; InputError if movies of one group differ in it."""
        found = {}
        for group, movie in zip(self.groups, self.movies):
            if found.setdefault(group, value(movie)) != value(movie):
                raise InputError("movies of optics group %d differ in their %s (%s and %s), which Scipion keeps for each optics group: give each its own optics group"
                                 % (group, what, found[group], value(movie)))
        return found


def _dose_per_frame_of_file(movie):
    """e/A^2; Scipion counts frames of EER movies as the camera wrote them, not the fractions that RELION makes of them."""
    return movie.dose_per_frame_e_per_A2 / (movie.eer_grouping or 1)


def _require_one_kind(what, items, properties):
    """InputError if items differ in a property, (name, function): a set of Scipion has one of it for all."""
    for name, value in properties:
        kinds = sorted({value(item) for item in items})
        if len(kinds) > 1:
            raise InputError("the %s differ (%s: %s and %s), and Scipion keeps one for the whole set: import each kind from a STAR file of its own, or correct the project with the "
                             "command refmotion run" % (what, name, kinds[0], kinds[-1]))


def fill_movies(movies, project, link_folder):
    """Fill a SetOfMovies from a ``RelionProject``; movie files are linked into ``link_folder``."""
    first = project.movies[0]
    movies.setSamplingRate(first.original_pixel_angstrom)
    acquisition, own = project.acquisition(), _of_optics_groups(project, link_folder)
    gains = set(own["rlnMicrographGainName"].values())
    if len(gains) == 1:         # else each optics group names its own
        movies.setGain(own.pop("rlnMicrographGainName")[project.groups[0]])
    acquisition.opticsGroupInfo.set(_with_columns(project, own) or acquisition.opticsGroupInfo.get())
    movies.setAcquisition(acquisition)
    upsampling = first.eer_upsampling or 1
    movies.setDim((first.size_yx[1] // upsampling, first.size_yx[0] // upsampling, _last_frame(first)))
    movies.setFramesRange([1, _last_frame(first), 1])
    for identifier, (metadata, group) in enumerate(zip(project.movies, project.groups), start=1):
        movie = Movie(location=_link(project.path(metadata.movie_file), link_folder))
        movie.setObjId(identifier)
        movie.setMicName(project.mic_names[identifier - 1])
        movie.setSamplingRate(metadata.original_pixel_angstrom)
        movie.setFramesRange([1, _last_frame(metadata), 1])
        movie.setAlignment(_alignment(metadata))
        movie._rlnOpticsGroup = Integer(group)
        movie._rlnMotionModelCoeff = String(json.dumps(_numbers(metadata.local_coefficients)))
        movie._rlnHotPixels = String(json.dumps(_numbers(metadata.hot_pixels_xy)))
        movies.append(movie)


def _of_optics_groups(project, link_folder):
    """What Scipion keeps of movies in their optics table, as scipion-em-relion names it: {column: {optics group: value, None without}}."""
    files = {path: _link(project.path(path), link_folder) for path in {p for m in project.movies for p in (m.gain_file, m.defect_file)} - {None}}
    return {"rlnMicrographGainName": project.of_groups("gain", lambda m: files.get(m.gain_file)),
            "rlnMicrographDefectFile": project.of_groups("defect file", lambda m: files.get(m.defect_file)),
            "rlnEERGrouping": project.of_groups("EER grouping", lambda m: m.eer_grouping),
            "rlnEERUpsampling": project.of_groups("EER upsampling", lambda m: relion_eer_upsampling(m.eer_upsampling))}


def _with_columns(project, columns):
    """The movies' optics table with those ``columns`` that have values, as text; None if there is nothing to add."""
    columns = {name: of_group for name, of_group in columns.items() if any(value is not None for value in of_group.values())}
    if not columns:
        return None
    groups = sorted(set(project.groups))
    table = project.optics or StarTable("optics", {"rlnOpticsGroupName": ["opticsGroup%d" % g for g in groups], "rlnOpticsGroup": [str(g) for g in groups]})
    numbers = table.integers("rlnOpticsGroup", 1).tolist()
    of_rows = {name: ["None" if of_group.get(number) is None else of_group[number] for number in numbers] for name, of_group in columns.items()}
    return table_text(table.with_columns(**of_rows)).strip() + "\n"


def _numbers(array):
    return [] if array is None else np.asarray(array).tolist()


def _last_frame(metadata):
    """1-based last frame of the file that was aligned."""
    return metadata.start_frame + metadata.n_frames - 1


def _alignment(metadata):
    shift = metadata.global_shift_xy_px
    alignment = MovieAlignment(first=metadata.start_frame, last=_last_frame(metadata), xshifts=shift[:, 0].tolist(),
                               yshifts=shift[:, 1].tolist())
    alignment.setRoi([0, 0, 0, 0])
    return alignment


def fill_particles_from_star(particles, project, star_file, link_folder):
    """Fill a SetOfParticles from a particle STAR file of the project; returns how many particles belong to no movie.

    Coordinates are stored as Scipion expects them: in px of the particle images, rounded.
    """
    source = read_particles(star_file, half_sets_from_order=True)
    used = [source.optics[group] for group in np.unique(source.table.optics_group).tolist()]
    _require_one_kind("particles", used, (("pixel size, Å", lambda g: round(g.image_pixel_angstrom, 5)), ("box, px", lambda g: g.image_size_px)))
    optics = used[0]
    acquisition = project.acquisition()
    acquisition.opticsGroupInfo.set(table_text(source.tables["optics"]).strip() + "\n")
    particles.setAcquisition(acquisition)
    particles.setSamplingRate(optics.image_pixel_angstrom)
    particles.setHasCTF(True)
    particles.setAlignmentProj()
    movie = match_micrographs(source.table.micrograph, [m.micrograph for m in project.movies])
    build = _ParticleBuilder(source, movie, project, link_folder)
    for row in range(len(source)):
        particles.append(build(row))
    return int((movie < 0).sum())


class _ParticleBuilder:
    """Makes one Particle per row of a particle STAR file."""

    def __init__(self, source, movie, project, link_folder):
        self.table, self.rows, self.movie, self.project, self.folder = source.table, source.tables["particles"], movie, project, link_folder
        self.pixel = np.array([source.optics[g].image_pixel_angstrom for g in self.table.optics_group])
        self.matrix = _scipion_matrices(self.table, self.pixel)
        self.links = {}
        self.extra = [(name, kind) for names, kind in ((_FLOATS, Float), (_INTEGERS, Integer)) for name in names if name in self.rows]

    def __call__(self, row):
        number, stack = self.rows.columns["rlnImageName"][row].split("@")
        if stack not in self.links:
            self.links[stack] = _link(self.project.path(stack), self.folder)
        particle = Particle()
        particle.setObjId(row + 1)
        particle.setLocation(int(number), self.links[stack])
        particle.setSamplingRate(float(self.pixel[row]))
        particle.setCoordinate(self._coordinate(row))
        particle.setCTF(self._ctf(row))
        particle.setTransform(Transform(matrix=self.matrix[row]))
        for name, kind in self.extra:
            setattr(particle, "_" + name, kind(float(self.rows.columns[name][row])))
        return particle

    def _coordinate(self, row):
        index = int(self.movie[row])
        metadata = self.project.movies[max(index, 0)]
        px = self.table.coordinate_yx_angstrom[row] * metadata.original_pixel_angstrom * metadata.binning / self.pixel[row]
        coordinate = Coordinate(x=int(np.rint(px[1])), y=int(np.rint(px[0])))
        known = index >= 0
        coordinate.setMicName(self.project.mic_names[index] if known else os.path.basename(str(self.table.micrograph[row])))
        if known:
            coordinate.setMicId(index + 1)
        return coordinate

    def _ctf(self, row):
        ctf = CTFModel()
        ctf.setStandardDefocus(*(float(getattr(self.table, name)[row]) for name in
                                 ("defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_degree")))
        ctf.setPhaseShift(float(self.table.phase_shift_degree[row]))
        return ctf


def _scipion_matrices(table, pixel):
    """(n, 4, 4): rotation transposed, and the origin in particle px turned into the map's frame (see ``geometry``)."""
    rotation = rotation_matrices(table.rotation_zyz_degree)
    origin = np.zeros((len(table), 3))
    origin[:, :2] = table.origin_yx_angstrom[:, ::-1] / pixel[:, None]
    matrix = np.tile(np.eye(4), (len(table), 1, 1))
    matrix[:, :3, :3] = np.swapaxes(rotation, 1, 2)
    matrix[:, :3, 3] = np.einsum("nji,nj->ni", rotation, origin)
    return matrix


def _link(path, folder):
    """Link ``path`` into ``folder``, with a number before its name if another file has that name; returns the link's path."""
    for number in itertools.count():
        target = os.path.join(folder, ("%d_" % number if number else "") + os.path.basename(path))
        if not os.path.lexists(target):
            createAbsLink(path, target)
        if os.path.realpath(target) == os.path.realpath(path):
            return target
