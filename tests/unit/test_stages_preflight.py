"""The look before the long run and the calibration, on movies and metadata that are turned round in every known way."""
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.engine.stages import align, calibrate, preflight
from refmotion_plugin.engine.stages.load import load_stack
from tests.unit.stage_stand_ins import Changed


def with_inputs(prepared, **inputs):
    return replace(prepared, spec=prepared.spec.model_copy(update=dict(inputs=prepared.spec.inputs.model_copy(update=inputs))))


def changed_particles(tiny, **change):
    """``particles_of`` with columns changed by functions of the table."""
    def of(movie):
        table = tiny.of(movie)
        return replace(table, **{name: function(table) for name, function in change.items()})
    return of


@pytest.fixture
def changed_movies(monkeypatch):
    """Make the stages read movies whose frames are changed by a function, all or one of them."""
    def use(change, only=None):
        def load(movie, prepared, keep=False, n_particles=None, needed_again=False):
            stack = load_stack(movie, prepared)
            return Changed(stack, change) if only in (None, movie) else stack
        for module in (preflight, align):
            monkeypatch.setattr(module, "load_stack", load)
    return use


@pytest.fixture(scope="module")
def report(tiny):
    return preflight.preflight(tiny.movies, tiny.of, tiny.prepared)


def test_a_project_that_is_right_passes(tiny, report):
    given = report.z[preflight.AS_GIVEN]
    assert given > 15 and report.particles == 24
    assert all(z < 0.7 * given for name, z in report.z.items() if name != preflight.AS_GIVEN)
    assert "as configured z = " in report.text and "24 particles" in report.text


def test_every_reading_has_a_remedy(report):
    assert set(report.z) - {preflight.AS_GIVEN} <= set(preflight.REMEDIES)


def test_a_movie_read_upside_down_is_told_to_be_flipped(tiny):
    with pytest.raises(InputError, match="set movie_flip_y to the other value") as error:
        preflight.preflight(tiny.movies, tiny.of, with_inputs(tiny.prepared, movie_flip_y=False))
    assert "as configured, on 24 particles" in str(error.value)


def test_flipping_a_tiff_as_it_is_flipped_anyway_changes_nothing(tiny, report):
    again = preflight.preflight(tiny.movies, tiny.of, with_inputs(tiny.prepared, movie_flip_y=True))
    assert again.z == report.z


@pytest.mark.parametrize("axes, words", [((1,), "left to right"), ((0, 1), "turned by 180 degrees")])
def test_mirrored_movies_are_told(tiny, changed_movies, axes, words):
    changed_movies(lambda frame: torch.flip(frame, axes))
    with pytest.raises(InputError, match=words):
        preflight.preflight(tiny.movies, tiny.of, tiny.prepared)


def test_origins_of_the_other_sign_are_told(tiny):
    of = changed_particles(tiny, origin_yx_angstrom=lambda t: -t.origin_yx_angstrom)
    with pytest.raises(InputError, match="negate both columns"):
        preflight.preflight(tiny.movies, of, tiny.prepared)


@pytest.mark.parametrize("factor, words", [(2.0, "half as large: set coordinate_pixel_angstrom to half"),
                                           (0.5, "twice as large: set coordinate_pixel_angstrom to twice")])
def test_coordinates_in_other_pixels_are_told(tiny, factor, words):
    of = changed_particles(tiny, coordinate_yx_angstrom=lambda t: factor * t.coordinate_yx_angstrom)
    with pytest.raises(InputError, match=words):
        preflight.preflight(tiny.movies, of, tiny.prepared)


def test_coordinates_in_pixels_of_the_particle_images_are_told(tiny):
    """Particles extracted at 2.6 A from movies of 2 A, with coordinates in the pixels of the images."""
    optics = {number: replace(group, image_pixel_angstrom=2.6) for number, group in tiny.prepared.optics[0].items()}
    of = changed_particles(tiny, coordinate_yx_angstrom=lambda t: t.coordinate_yx_angstrom * 2.0 / 2.6)
    with pytest.raises(InputError, match="pixel size of the particle images"):
        preflight.preflight(tiny.movies, of, replace(tiny.prepared, optics=(optics,)))


def test_an_inverted_map_is_told(tiny):
    reference = tiny.prepared.references[0]
    inverted = replace(tiny.prepared, references=(replace(reference, spectrum=-reference.spectrum),))
    with pytest.raises(InputError, match="correlate negatively.*invert the map"):
        preflight.preflight(tiny.movies, tiny.of, inverted)


def test_movies_of_noise_are_told(tiny, changed_movies):
    generator = torch.Generator().manual_seed(0)
    changed_movies(lambda frame: torch.poisson(torch.full_like(frame, 6.0), generator=generator))
    with pytest.raises(InputError, match="do not correlate with the movies in any reading"):
        preflight.preflight(tiny.movies, tiny.of, tiny.prepared)


def test_poses_of_other_particles_are_told(tiny):
    of = changed_particles(tiny, rotation_zyz_degree=lambda t: t.rotation_zyz_degree[::-1] + 37.0,
                           coordinate_yx_angstrom=lambda t: t.coordinate_yx_angstrom + [60.0, -60.0])
    with pytest.raises(InputError, match="do not correlate|the particles fit|the movies fit"):
        preflight.preflight(tiny.movies, of, tiny.prepared)


def test_the_level_of_the_counts_does_not_matter(tiny, changed_movies, report):
    changed_movies(lambda frame: 3.0 * frame + 100.0)
    again = preflight.preflight(tiny.movies, tiny.of, tiny.prepared)
    for name, z in report.z.items():
        assert again.z[name] == pytest.approx(z, rel=0.02, abs=0.3)


def test_a_movie_of_other_counts_weighs_as_much(tiny, changed_movies, report):
    changed_movies(lambda frame: 50.0 * frame, tiny.movies[1])
    again = preflight.preflight(tiny.movies, tiny.of, tiny.prepared)
    assert again.z == pytest.approx(report.z, rel=1e-3, abs=0.01)
    assert again.scales[0].z == pytest.approx(report.scales[0].z, rel=1e-3, abs=0.01)


def test_a_movie_that_was_hardly_exposed_does_not_outweigh_the_others(tiny, changed_movies, report):
    generator = torch.Generator().manual_seed(0)
    changed_movies(lambda frame: torch.poisson(torch.full_like(frame, 0.002), generator=generator), tiny.movies[1])
    again = preflight.preflight(tiny.movies, tiny.of, tiny.prepared)
    assert again.particles == 24 and again.z[preflight.AS_GIVEN] > 0.35 * report.z[preflight.AS_GIVEN]


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_an_empty_movie_is_left_out_and_said(tiny, changed_movies, caplog, value):
    changed_movies(lambda frame: torch.full_like(frame, value), tiny.movies[0])
    assert preflight.preflight(tiny.movies, tiny.of, tiny.prepared).particles == 12
    assert "is left out of the preflight: the frames of %s are flat" % tiny.movies[0].micrograph in caplog.text


def test_a_movie_that_cannot_be_read_is_left_out_and_said(tiny, caplog):
    missing = replace(tiny.movies[1], movie_file="nowhere/movie.tiff")
    with caplog.at_level(logging.WARNING):
        report = preflight.preflight([tiny.movies[0], missing], tiny.of, tiny.prepared)
    assert report.particles == 12 and "left out of the preflight" in caplog.text
    with pytest.raises(InputError, match="none of the movies tried in the preflight could be used; the first says: .*nowhere"):
        preflight.preflight([missing], tiny.of, tiny.prepared)


# --- calibration -----------------------------------------------------------------------------------------------------

def test_the_amplitude_is_nought_outside_the_band_and_rises_with_frequency_within(tiny, calibrated):
    """The reference came from rigidly aligned frames: movies hold more of it at high frequency."""
    amplitude = calibrated.amplitudes[0]
    k, factor = amplitude.frequency_per_angstrom, amplitude.factor
    assert (factor >= 0).all() and (factor[k < 1 / 150] == 0).all()
    inside = np.flatnonzero(factor > 0)
    assert (np.diff(inside) == 1).all() and k[inside[-1]] > 1 / 8
    low, high = factor[(k > 1 / 30) & (k < 1 / 15)].mean(), factor[(k > 1 / 9) & (k < 1 / 7.5)].mean()
    assert high > 1.15 * low
    assert amplitude.on(calibrated.alignment_grid(2.0), "cpu")[-1] == 0


def test_the_model_has_the_amplitude_of_the_movies(calibrated, aligned):
    """Regression of aligned patches on S D A over the later frames is one: data and prior have the same unit."""
    table = aligned[0].fcc + aligned[1].fcc
    k, dose = table.frequency_per_angstrom, table.dose_e_per_A2
    band, late = (k > 1 / 20) & (k < 1 / 8), dose > calibrate.SKIPPED_DOSE
    shape = exposure_amplitude(dose, k) * np.interp(k, calibrated.amplitudes[0].frequency_per_angstrom, calibrated.amplitudes[0].factor)
    part = lambda values: values[late][:, band].sum()
    assert part(table.cross[0] * shape) / part(table.power_reference[0] * shape ** 2) == pytest.approx(1.0, abs=0.1)


def test_the_amplitude_does_not_depend_on_the_counts(tiny, calibrated, changed_movies):
    changed_movies(lambda frame: 5.0 * frame)
    again = calibrate.calibrate(tiny.movies, tiny.of, tiny.prepared)
    np.testing.assert_allclose(again.amplitudes[0].factor, calibrated.amplitudes[0].factor, rtol=0.02, atol=1e-3)


def test_a_movie_that_cannot_be_used_is_left_out_of_the_calibration(tiny, caplog):
    missing = replace(tiny.movies[1], movie_file="nowhere/movie.tiff")
    with caplog.at_level(logging.WARNING):
        found = calibrate.calibrate([tiny.movies[0], missing], tiny.of, tiny.prepared)
    assert found.amplitudes[0].factor.max() > 0 and "left out of the calibration" in caplog.text
    with pytest.raises(InputError, match="none of the movies tried for calibration could be used; the first says: .*nowhere"):
        calibrate.calibrate([missing], tiny.of, tiny.prepared)


def test_an_unusable_movie_is_replaced_by_another(tiny, calibrated, monkeypatch):
    """Two movies are wanted of three, the first cannot be read: the one that was not chosen steps in."""
    monkeypatch.setattr(calibrate, "MOST_MOVIES", 2)
    missing = replace(tiny.movies[0], micrograph="gone.mrc", movie_file="nowhere/movie.tiff")
    of = lambda movie: tiny.of(tiny.movies[0]) if movie is missing else tiny.of(movie)
    found = calibrate.calibrate([missing, tiny.movies[1], tiny.movies[0]], of, tiny.prepared)
    np.testing.assert_allclose(found.amplitudes[0].factor, calibrated.amplitudes[0].factor, rtol=1e-3, atol=1e-5)
    also = replace(missing, micrograph="gone_too.mrc")
    of_all = lambda movie: tiny.of(tiny.movies[0]) if movie is missing or movie is also else tiny.of(movie)
    assert preflight.preflight([missing, tiny.movies[1], also], of_all, tiny.prepared).particles == 12


def test_empty_movies_are_left_out_of_the_calibration(tiny, changed_movies):
    changed_movies(torch.zeros_like)
    with pytest.raises(InputError, match="none of the movies tried for calibration could be used"):
        calibrate.calibrate(tiny.movies, tiny.of, tiny.prepared)


@pytest.mark.parametrize("seed", [4, 7, 9])
def test_movies_of_noise_do_not_calibrate(tiny, changed_movies, seed):
    """Seeds whose noise, followed by the tracks, correlates by 3 to 7 standard errors with the opposite half."""
    generator = torch.Generator().manual_seed(seed)
    changed_movies(lambda frame: torch.poisson(torch.full_like(frame, 6.0), generator=generator))
    with pytest.raises(InputError, match="do not correlate with the reference of .*particles.star"):
        calibrate.calibrate(tiny.movies, tiny.of, tiny.prepared)


def test_movies_are_chosen_evenly_and_only_with_particles(tiny):
    names = ["m%03d" % i for i in range(100)]
    movies = [replace(tiny.movies[0], micrograph=name) for name in names]
    counts = {name: (0 if i % 10 == 0 else 50) for i, name in enumerate(names)}
    chosen = calibrate.choose_movies(movies, lambda m: range(counts[m.micrograph]))
    assert len(chosen) == np.ceil(calibrate.TARGET_PARTICLES / 50) and all(counts[m.micrograph] for m in chosen)
    places = [names.index(m.micrograph) for m in chosen]
    assert places[0] == 1 and places[-1] == 99 and (np.diff(places) > 15).all()
    assert chosen == calibrate.choose_movies(movies, lambda m: range(counts[m.micrograph]))
    few = calibrate.choose_movies(movies, lambda m: range(min(2, counts[m.micrograph])))
    assert len(few) == calibrate.MOST_MOVIES
    with pytest.raises(InputError, match="rlnMicrographName"):
        calibrate.choose_movies(movies, lambda m: [])


def test_frames_beyond_the_movie_are_refused(tiny):
    job = with_inputs(tiny.prepared, first_frame=3, last_frame=99)
    with pytest.raises(InputError, match="frames 3 to 99"):
        preflight.preflight(tiny.movies, tiny.of, job)


def test_movies_are_added_for_a_reference_of_which_the_chosen_ones_have_too_few(tiny):
    """Particles of the second one are in few movies, neither first nor last in the list."""
    movies = [replace(tiny.movies[0], micrograph="m%03d" % i) for i in range(60)]
    rare = {"m%03d" % i: 50 for i in range(20, 30)}
    table = lambda movie: Sized(np.repeat([0, 1], [100, rare.get(movie.micrograph, 0)]))
    turn, wanted = calibrate.in_turn(movies, table, 2)
    chosen = [m.micrograph for m in turn[:wanted]]
    assert chosen[:2] == ["m000", "m059"] and len(set(chosen)) == wanted == 2 + calibrate.TARGET_PARTICLES // 50 and set(chosen[2:]) <= set(rare)
    assert calibrate.in_turn(movies, table)[1] == 2
    few = {"m031": 3}
    one = lambda movie: Sized(np.repeat([0, 1], [100, few.get(movie.micrograph, 0)]))
    assert [m.micrograph for m in calibrate.in_turn(movies, one, 2)[0][2:3]] == ["m031"]


class Sized(SimpleNamespace):
    """A table of particles of which only the references matter."""

    def __init__(self, reference):
        super().__init__(reference=reference)

    def __len__(self):
        return len(self.reference)


def test_a_reference_without_any_particle_looked_at_is_named(tiny, calibrated):
    k = np.linspace(0.0, 0.1, 9)
    sums = {"frequency": k, "cross": np.full((1, 9), 1e4), "power": np.full((1, 9), 1e4)}
    found = calibrate._amplitude(sums, 0, tiny.prepared)            # fewer shells than the smoothing has taps
    assert len(found.factor) == 9 and found.factor.max() == pytest.approx(1.0)
    with pytest.raises(InputError, match="none of the movies that were tried for calibration and have particles of .*particles.star"):
        calibrate._amplitude(dict(sums, cross=np.zeros((1, 9)), power=np.zeros((1, 9))), 0, tiny.prepared)


def test_a_correlation_that_is_no_number_is_none():
    with pytest.raises(InputError, match="do not correlate with the movies in any reading"):
        preflight._decide(preflight.PreflightReport({preflight.AS_GIVEN: float("nan"), "upside down": 1.0}, 10, {}))
