"""What leaves a job: particle STAR files, the list of particles left out, B-factors, tracks."""
import logging
import os
from collections import defaultdict

import numpy as np

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.markers import polished_parts
from refmotion_plugin.contract.star import write_bfactors_star, write_left_out, write_particles, write_tracks_star
from refmotion_plugin.contract.store import load_trajectories

log = logging.getLogger(__name__)


def write_particle_stars(inputs, layout, spec, polished_keys, failed, recentering_yx_px):
    """Write the polished particles of every reference and the list of those left out.

    Parameters: ``polished_keys`` movies with a valid polish marker; ``failed`` {key: reason} of the others.
    Every particle of the input is in exactly one of the files. Returns (written, left out).
    """
    left_out = list(inputs.left_out)
    entries = defaultdict(list)                         # reference -> (row, image name, optics group, pixel, box, moved px, moved A)
    for movie in inputs.movies:
        table = inputs.particles[movie.key]
        if movie.key not in polished_keys:
            reason = "movie failed: " + failed.get(movie.key, "it was not polished")
            left_out += [(int(r), int(i), reason) for r, i in zip(table.reference, table.row)]
            continue
        for part in polished_parts(layout, movie.key, len(inputs.sets)):
            left_out += [(part["reference"], row, reason) for row, reason in part["rejected"]]
            entries[part["reference"]] += _entries(movie, table, part, layout, spec, recentering_yx_px)
    for particles in inputs.sets:
        _write_set(particles, entries[particles.reference], layout, spec)
    if left_out:
        write_left_out(layout.left_out, [(inputs.sets[r], row, reason) for r, row, reason in sorted(left_out)])
    elif layout.left_out.exists():
        layout.left_out.unlink()
    return sum(map(len, entries.values())), len(left_out)


def withdraw_particles(job):
    """Remove the particle files, since images that they name are replaced from now on: nobody shall be given some of both kinds.

    Files of another number of references go too, those that have images in the job; the job's own inputs stay, wherever they lie.
    """
    layout, inputs = job.layout, {os.path.realpath(str(particles.path)) for particles in job.inputs.sets}
    numbered = [p for p in layout.folder.glob("particles_*.star") if any(layout.folder.glob("movies/*/polished_%s.mrcs" % p.stem.partition("_")[2]))]
    gone = [p for p in [layout.particles(0, 1), layout.left_out] + numbered if p.exists() and os.path.realpath(str(p)) not in inputs]
    for path in gone:
        path.unlink()
    if gone:
        log.info("images are made anew: %s written again at the end", " and ".join(p.name for p in gone) + (" is" if len(gone) == 1 else " are"))


def _entries(movie, table, part, layout, spec, recentering_yx_px):
    own = table[table.reference == part["reference"]]
    place = {row: i for i, row in enumerate(own.row.tolist())}
    stack = layout.polished(movie.key, part["reference"], len(spec.references))
    moved = np.zeros((len(own), 2))
    if spec.output.recenter:
        moved = np.asarray(recentering_yx_px(own, movie.original_pixel_angstrom)) * movie.original_pixel_angstrom
    pixel = spec.inputs.coordinate_pixel_angstrom or movie.original_pixel_angstrom * movie.binning
    return [(row, "%06d@%s" % (number, stack), int(own.optics_group[place[row]]), (part["pixel_angstrom"], part["box_px"]),
             moved[place[row]] / pixel, moved[place[row]]) for number, row in enumerate(part["rows"], 1)]


def _write_set(particles, entries, layout, spec):
    path = layout.particles(particles.reference, len(spec.references))
    if not entries:
        log.warning("no particle of %s was polished: %s is not written", particles.path, path)
        if path.exists():
            path.unlink()
        return
    entries.sort(key=lambda e: e[0])
    rows, names, groups, geometry, moved_px, moved_angstrom = zip(*entries)
    moved = (np.array(moved_px), np.array(moved_angstrom)) if spec.output.recenter else None
    write_particles(path, particles, rows, names, _by_group(particles, zip(groups, geometry)), moved)


def check_geometry(inputs, geometry_of):
    """InputError if images cannot be made as asked for, or not of one size for each optics group; before the first movie.

    ``geometry_of(reference index, movie pixel in A)`` -> (A/px, px) of the images.
    """
    for particles in inputs.sets:
        of_movie = []
        for movie in inputs.movies:
            table = inputs.particles[movie.key]
            groups = np.unique(table.optics_group[table.reference == particles.reference]).tolist()
            of_movie += [(group, geometry_of(particles.reference, movie.original_pixel_angstrom)) for group in groups]
        _by_group(particles, of_movie)


def _by_group(particles, of_groups):
    """{optics group: (A/px, px)} of pairs; InputError if there are two kinds of images in one."""
    found = {}
    for group, pixel_and_box in of_groups:
        if found.setdefault(group, pixel_and_box) != pixel_and_box:
            raise InputError("%s: optics group %d has movies of different pixel size (images of %s and %s A/px and px): give each pixel "
                             "size its own optics group" % (particles.path, group, found[group], pixel_and_box))
    return found


def write_bfactors(layout, weights):
    """RELION's bfactors.star, one per optics group."""
    for group in range(len(weights.b_factor_A2)):
        write_bfactors_star(layout.bfactors(group), weights.b_factor_A2[group], weights.scale[group])


def write_tracks(layout, keys):
    """RELION's track files of movies that have none yet, or an older one than their trajectories."""
    for key in keys:
        path, source = layout.tracks(key), layout.trajectories(key)
        if not path.exists() or path.stat().st_mtime_ns < source.stat().st_mtime_ns:
            write_tracks_star(path, load_trajectories(source).displacement_yx_angstrom)
