"""Each convention as a check written from its description, and the same check on wrong variants, which must be caught."""
import numpy as np
import pytest
import torch

from refmotion_plugin.contract import conventions as c
from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.errors import MovieError
from refmotion_plugin.contract.records import MovieMetadata, OpticsGroup, ParticleTable
from refmotion_plugin.contract.spec import InputSpec
from refmotion_plugin.engine.maths.fourier import FourierGrid
from refmotion_plugin.engine.optics.predict import predict, predict_both
from refmotion_plugin.engine.optics.reference import build_reference
from refmotion_plugin.engine.stages.patches import cut_at, initial_displacement, plan_frames

RNG = np.random.default_rng(11)


def holds(check, right, wrong):
    """The check passes on what the package does and fails on every variant that is turned round."""
    check(right)
    unnoticed = []
    for name, variant in wrong.items():
        try:
            check(variant)
        except AssertionError:
            continue
        unnoticed.append(name)
    assert not unnoticed, "the check does not see: %s" % ", ".join(unnoticed)


# --- frame shifts ----------------------------------------------------------------------------------------------------

def test_frame_shifts_are_to_be_applied_so_the_motion_is_their_negative():
    """A feature at q of the micrograph is at q - shift of the frame; x is the file's first column; the origin is where the file has it."""
    shift_xy, pixel, q_yx = np.array([[2.0, -1.0], [5.0, 0.5], [4.0, -7.0]]), 1.3, np.array([310.0, 120.0])

    def check(displacement):
        moved = displacement(shift_xy, pixel)
        for f in range(3):
            seen_px = q_yx - shift_xy[f, ::-1]
            np.testing.assert_allclose(q_yx * pixel + moved[f], seen_px * pixel, atol=1e-9)

    holds(check, c.displacement_from_frame_shifts, {
        "sign": lambda s, p: -c.displacement_from_frame_shifts(s, p),
        "axes": lambda s, p: c.displacement_from_frame_shifts(s, p)[:, ::-1],
        "first frame subtracted": lambda s, p: c.displacement_from_frame_shifts(s - s[:1], p),
        "pixels": lambda s, p: c.displacement_from_frame_shifts(s, 1.0)})


def test_shifts_and_displacements_are_inverse():
    shift = RNG.normal(size=(6, 2))
    back = c.frame_shifts_from_displacement(c.displacement_from_frame_shifts(shift, 0.83), 0.83)
    np.testing.assert_allclose(back, shift, atol=1e-12)


# --- local motion ----------------------------------------------------------------------------------------------------

COEFFICIENTS = RNG.normal(size=36)


def documented_polynomial(coefficients, z, x, y):
    """Shift (x, y): for each axis 18 numbers, in threes (z, z^2, z^3) for 1, x, x^2, y, y^2, xy."""
    shifts = []
    for first in (0, 18):
        total, i = 0.0, first
        for space in (1.0, x, x * x, y, y * y, x * y):
            for power in (1, 2, 3):
                total += coefficients[i] * space * z ** power
                i += 1
        shifts.append(total)
    return shifts


def test_the_local_motion_polynomial_is_the_documented_one():
    def check(shift):
        for z, x, y in ((0, 0.3, -0.2), (1, -0.5, 0.5), (7, 0.21, 0.42), (13, 0.0, -0.37)):
            expected = documented_polynomial(COEFFICIENTS, z, x, y)
            np.testing.assert_allclose(shift(COEFFICIENTS, z, x, y), expected[::-1], rtol=1e-10, atol=1e-9)

    turned = np.r_[COEFFICIENTS[18:], COEFFICIENTS[:18]]
    holds(check, c.local_shift_yx_px, {
        "x and y coefficients": lambda k, z, x, y: c.local_shift_yx_px(turned, z, x, y),
        "x and y places": lambda k, z, x, y: c.local_shift_yx_px(k, z, y, x),
        "frames from 1": lambda k, z, x, y: c.local_shift_yx_px(k, z + 1, x, y),
        "sign": lambda k, z, x, y: -c.local_shift_yx_px(k, z, x, y),
        "order": lambda k, z, x, y: c.local_shift_yx_px(k.reshape(2, 6, 3).transpose(0, 2, 1).ravel(), z, x, y)})


def movie(local=None, **changes):
    shift = np.array([[1.0, 2.0], [1.5, 0.0], [4.0, -1.0], [6.0, -2.0]])
    values = dict(micrograph="m.mrc", movie_file="m.tif", size_yx=(400, 600), n_frames=4, original_pixel_angstrom=0.9, binning=1.0,
                  dose_per_frame_e_per_A2=1.25, pre_exposure_e_per_A2=3.0, voltage_kilovolt=300.0, start_frame=1,
                  global_shift_xy_px=shift, local_coefficients=local)
    return MovieMetadata(**{**values, **changes})


def frames_of(movie, first=1, last=-1, **more):
    return plan_frames(movie, InputSpec(movies="m.star", first_frame=first, last_frame=last, **more))


@pytest.mark.parametrize("first, last", [(0, 4), (1, 3)])
def test_global_and_local_shifts_add_and_the_motion_is_minus_their_sum(first, last):
    position = np.array([[50.0, 500.0], [333.0, 20.0]])
    local = 0.05 * COEFFICIENTS

    def check(displacement):
        found = displacement(movie(local), position)
        for p, (y, x) in enumerate(position):
            for i, f in enumerate(range(first, last)):
                sx, sy = documented_polynomial(local, f, x / 0.9 / 600 - 0.5, y / 0.9 / 400 - 0.5)
                gx, gy = movie().global_shift_xy_px[f]
                np.testing.assert_allclose(found[p, i], [-0.9 * (gy + sy), -0.9 * (gx + sx)], atol=1e-9)

    plan = frames_of(movie(), first + 1, last)
    now = lambda m, p: initial_displacement(m, p, plan)
    rigid = now(movie(), position)
    holds(check, now, {"local sign": lambda m, p: 2 * rigid - now(m, p), "absent": lambda m, p: rigid,
                       "sign": lambda m, p: -now(m, p), "places": lambda m, p: now(m, p[:, ::-1])})


def test_a_movie_without_a_local_model_moves_rigidly():
    found = initial_displacement(movie(), np.array([[10.0, 20.0], [300.0, 400.0]]), frames_of(movie()))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], -0.9 * movie().global_shift_xy_px[:, ::-1])


# --- orientation -----------------------------------------------------------------------------------------------------

def test_zyz_angles_project_a_point_r_of_the_map_to_a_times_r():
    """Three turns of the coordinate system about z, the new y and the new z, written as passive rotations one by one."""
    degrees = np.array([[30.0, 50.0, -70.0], [-120.0, 100.0, 20.0], [0.0, 0.0, 45.0], [10.0, 0.0, 0.0], [0.0, 35.0, 0.0]])
    point = np.array([1.0, 2.0, 3.0])

    def passive(axis, angle, v):
        turned, (a, b) = v.copy(), {"z": (0, 1), "y": (2, 0)}[axis]
        turned[a] = np.cos(angle) * v[a] + np.sin(angle) * v[b]
        turned[b] = -np.sin(angle) * v[a] + np.cos(angle) * v[b]
        return turned

    def check(matrices):
        for angles, matrix in zip(np.deg2rad(degrees), matrices(degrees)):
            expected = passive("z", angles[2], passive("y", angles[1], passive("z", angles[0], point)))
            np.testing.assert_allclose(matrix @ point, expected, atol=1e-12)

    holds(check, c.rotation_matrices, {
        "inverse": lambda d: c.rotation_matrices(d).transpose(0, 2, 1),
        "rot and psi": lambda d: c.rotation_matrices(d[:, ::-1]),
        "sign": lambda d: c.rotation_matrices(-d),
        "radians": lambda d: c.rotation_matrices(np.deg2rad(d))})


# --- dose ------------------------------------------------------------------------------------------------------------

def test_the_dose_of_a_frame_is_that_in_its_middle():
    def check(dose):
        np.testing.assert_allclose(dose(3, 2.0, 10.0, 4), [10 + 2 * 4.5, 10 + 2 * 5.5, 10 + 2 * 6.5])

    holds(check, c.dose_at_mid_frame, {
        "start of the frame": lambda n, d, pre, f: c.dose_at_mid_frame(n, d, pre, f) - d / 2,
        "end of the frame": lambda n, d, pre, f: c.dose_at_mid_frame(n, d, pre, f) + d / 2,
        "no pre-exposure": lambda n, d, pre, f: c.dose_at_mid_frame(n, d, 0.0, f),
        "skipped frames not counted": lambda n, d, pre, f: c.dose_at_mid_frame(n, d, pre)})


def test_frames_skipped_upstream_or_by_the_job_have_had_their_dose():
    plan = frames_of(movie(start_frame=3), 2, 4)
    np.testing.assert_allclose(plan.dose_e_per_A2, 3.0 + 1.25 * (np.array([3, 4, 5]) + 0.5))
    assert (plan.first, plan.last, len(plan)) == (1, 4, 3)
    with pytest.raises(MovieError, match="frames 2 to 5 .* has 4 frames"):
        frames_of(movie(), 2, 5)


def test_other_eer_fractions_have_their_own_dose_and_the_motion_of_their_moment():
    """Upstream fractions of 20 detector frames, here of 10 or 40: the dose per fraction follows, the path stays."""
    upstream = movie(eer_grouping=20)
    fine, coarse = frames_of(upstream, eer_grouping=10), frames_of(upstream, eer_grouping=40)
    assert (len(fine), len(coarse)) == (8, 2)
    np.testing.assert_allclose(fine.dose_e_per_A2, 3.0 + 0.625 * (np.arange(8) + 0.5))
    np.testing.assert_allclose(coarse.dose_e_per_A2, 3.0 + 2.5 * (np.arange(2) + 0.5))
    assert (fine.dose_per_frame_e_per_A2, coarse.dose_per_frame_e_per_A2) == (0.625, 2.5)
    at = lambda plan: initial_displacement(upstream, np.zeros((1, 2)), plan)[0]
    plain = at(frames_of(upstream))
    np.testing.assert_allclose(at(coarse), [(plain[0] + plain[1]) / 2, (plain[2] + plain[3]) / 2], atol=1e-12)
    np.testing.assert_allclose(at(fine)[1], 0.75 * plain[0] + 0.25 * plain[1], atol=1e-12)


def test_other_fractions_are_refused_if_frames_were_discarded():
    with pytest.raises(MovieError, match="aligned from frame 2 on"):
        frames_of(movie(eer_grouping=20, start_frame=2), eer_grouping=10)
    assert len(frames_of(movie(eer_grouping=20, start_frame=2), eer_grouping=20)) == 4


def test_fractions_longer_than_the_movie_are_told():
    with pytest.raises(MovieError, match="has 80 detector frames, fewer than the 100 of one fraction: lower the EER grouping"):
        frames_of(movie(eer_grouping=20), eer_grouping=100)


def test_the_exposure_curve_is_the_published_one():
    """exp(-N / (2 Nc)), Nc = 0.245 k^-1.665 + 2.81 at 300 kV, 0.8 of it at 200 kV: Grant and Grigorieff 2015."""
    k = np.array([1 / 20.0, 1 / 10.0, 1 / 3.0])
    critical = 0.245 * k ** -1.665 + 2.81
    np.testing.assert_allclose(exposure_amplitude([0.0, 7.0], k), np.exp(-np.outer([0.0, 7.0], 0.5 / critical)))
    np.testing.assert_allclose(exposure_amplitude([7.0], k, 200.0), np.exp(-7.0 / (1.6 * critical))[None])
    assert np.isfinite(exposure_amplitude([5.0], [0.0])).all() and exposure_amplitude([5.0], [0.0])[0, 0] > 0.99


# --- the particle's place, contrast and halves -----------------------------------------------------------------------

BOX, PIXEL = 32, 3.0
OPTICS = {1: OpticsGroup(number=1, name="one", voltage_kilovolt=300.0, spherical_aberration_millimetre=0.0, amplitude_contrast=0.0,
                         image_pixel_angstrom=PIXEL, image_size_px=BOX)}


def particles(**columns):
    """In focus, phase plate of 90 degrees: the transfer is +1, so that a prediction is the projection itself."""
    n = len(next(iter(columns.values()))) if columns else 1
    one, zero = np.ones(n), np.zeros(n)
    values = dict(row=np.arange(n), reference=zero.astype(np.int32), micrograph=np.array(["m.mrc"] * n),
                  coordinate_yx_angstrom=np.zeros((n, 2)), origin_yx_angstrom=np.zeros((n, 2)), rotation_zyz_degree=np.zeros((n, 3)),
                  half=one.astype(np.int8), optics_group=one.astype(np.int32), defocus_u_angstrom=zero, defocus_v_angstrom=zero,
                  defocus_angle_degree=zero, phase_shift_degree=90 * one, ctf_bfactor_A2=zero, ctf_scale=one)
    return ParticleTable(**{**values, **columns})


def blob(z, y, x):
    """Bright spot at voxel (z, y, x) as float32 (BOX, BOX, BOX)."""
    axis = np.arange(BOX)
    square = (axis[:, None, None] - z) ** 2 + (axis[None, :, None] - y) ** 2 + (axis[None, None, :] - x) ** 2
    return np.exp(-square / 6.0).astype(np.float32)


@pytest.fixture(scope="module")
def reference():
    """Half-map 1 has its second spot at +y, half-map 2 at +x."""
    main = blob(BOX // 2, BOX // 2, BOX // 2) + blob(BOX // 2, BOX // 2 - 4, BOX // 2 + 2)
    second = 0.3 * blob(BOX // 2, BOX // 2 + 5, BOX // 2), 0.3 * blob(BOX // 2, BOX // 2, BOX // 2 - 5)
    return build_reference(tuple(torch.from_numpy(main + s) for s in second), None, PIXEL)


GRID = FourierGrid(BOX, PIXEL, BOX)


def as_image(spectrum):
    return torch.fft.irfft2(spectrum, s=(BOX, BOX)).numpy()


def test_predictions_are_dark_since_protein_is_dark_in_movies(reference):
    def check(contrast):
        image = contrast * as_image(predict(reference, particles(), OPTICS, [1], GRID))[0]
        assert image[BOX // 2, BOX // 2] < -1.0 and abs(image.min()) > 5 * image.max()

    assert c.MOVIE_CONTRAST == -1.0
    holds(check, 1.0, {"bright": -1.0})


def test_the_box_centre_is_pixel_half_the_size(reference):
    image = -as_image(predict(reference, particles(), OPTICS, [1], GRID))[0]
    around = image[BOX // 2 - 2:BOX // 2 + 3, BOX // 2 - 2:BOX // 2 + 3]
    assert np.unravel_index(around.argmax(), around.shape) == (2, 2)
    around = image[BOX // 2 - 6:BOX // 2 - 1, BOX // 2:BOX // 2 + 5]        # the spot at voxel (y, x) = centre + (-4, +2)
    assert np.unravel_index(around.argmax(), around.shape) == (2, 2)


def test_half_map_one_belongs_to_subset_one_and_the_opposite_judges(reference):
    from_one = as_image(predict(reference, particles(), OPTICS, [1], GRID))[0]
    from_two = as_image(predict(reference, particles(), OPTICS, [2], GRID))[0]
    dark = lambda image, dy, dx: -image[BOX // 2 + dy, BOX // 2 + dx]
    assert dark(from_one, 5, 0) > 3 * abs(dark(from_one, 0, -5)) and dark(from_two, 0, -5) > 3 * abs(dark(from_two, 5, 0))

    def check(pair):
        own, opposite = pair(particles(half=np.array([1, 2], np.int8)))
        np.testing.assert_allclose(as_image(own), [from_one, from_two], atol=1e-4)
        np.testing.assert_allclose(as_image(opposite), [from_two, from_one], atol=1e-4)

    now = lambda table: predict_both(reference, table, OPTICS, GRID)
    holds(check, now, {"swapped": lambda table: now(table)[::-1]})


def test_a_turned_particle_shows_the_point_r_at_a_r(reference):
    """psi = 90 turns (x, y) into (y, -x): the spot at (x, y) = (+2, -4) is seen at (-4, -2)."""
    image = -as_image(predict(reference, particles(rotation_zyz_degree=np.array([[0.0, 0.0, 90.0]])), OPTICS, [1], GRID))[0]
    seen = {place: image[BOX // 2 + place[1], BOX // 2 + place[0]] for place in ((2, -4), (-4, -2), (4, 2), (-2, 4))}
    assert max(seen, key=seen.get) == (-4, -2) and seen[(-4, -2)] > 3 * max(v for k, v in seen.items() if k != (-4, -2))
    expected = c.rotation_matrices(np.array([0.0, 0.0, 90.0])) @ [2.0, -4.0, 0.0]
    np.testing.assert_allclose(expected, [-4.0, -2.0, 0.0], atol=1e-12)


def test_the_centre_of_the_particle_is_coordinate_minus_origin():
    """A delta drawn at coordinate - origin + displacement lands at the box centre plus the residual of the cut."""
    table = particles(coordinate_yx_angstrom=np.array([[150.0, 210.0]]), origin_yx_angstrom=np.array([[7.0, -4.0]]))
    displacement = np.array([[[3.3, -1.9]]])
    seen = np.array([150.0 - 7.0, 210.0 + 4.0]) + displacement[0, 0]

    def check(position):
        cut = cut_at(position(table)[:, None] + displacement, GRID, "cpu")
        place = cut.corner_yx[0, 0].numpy() * PIXEL + BOX // 2 * PIXEL + cut.residual_yx_angstrom[0, 0].numpy()
        np.testing.assert_allclose(place, seen, atol=1e-9)
        assert np.abs(cut.residual_yx_angstrom.numpy()).max() <= PIXEL / 2

    holds(check, lambda t: t.position_yx_angstrom, {
        "plus": lambda t: t.coordinate_yx_angstrom + t.origin_yx_angstrom, "ignored": lambda t: t.coordinate_yx_angstrom,
        "axes": lambda t: t.coordinate_yx_angstrom - t.origin_yx_angstrom[:, ::-1]})
