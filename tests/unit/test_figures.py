"""Figures are drawn from any result that can occur: one particle, one frame, nothing seen; and show what the numbers say."""
import csv
from collections import OrderedDict
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from refmotion_plugin.contract.motion_summary import motion_statistics
from refmotion_plugin.contract.records import DoseWeights, FccTable, Trajectories
from refmotion_plugin.contract.results import MovieRow
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.contract.verdict import Change, Finding, Reconstruction, Verdict
from refmotion_plugin.contract.weighting import normalise
from refmotion_plugin.contract.damage import exposure_amplitude
from refmotion_plugin.figures import averages, export, fcc, images, motion, movies, neighbours, particles, prior, reconstruction, style, trajectories, verdict, weights


def drawn(figure, size=(640, 480)):
    """Render it small, so that lazy parts are exercised; returns the axes."""
    figure.set_size_inches(size[0] / figure.dpi, size[1] / figure.dpi)
    FigureCanvasAgg(figure).draw()          # the canvas that a figure comes with draws nothing
    return figure.axes


def fcc_table(frames=5, shells=20, value=0.1, components=100.0):
    shape = (2, frames, shells)
    return FccTable(np.linspace(0, 0.4, shells), np.arange(frames) + 0.5, np.full(shape, value), np.ones(shape), np.ones(shape), np.full(shape, components))


def tracks(n=12, frames=5, name="M/mic $1_{2}$.mrc"):
    rng = np.random.default_rng(1)
    common = rng.normal(size=(1, frames, 2)).cumsum(axis=1)
    track = (common + 0.1 * rng.normal(size=(n, frames, 2))).astype(np.float32)
    return Trajectories(name, np.zeros(n, np.int32), np.arange(n), rng.uniform(0, 4000, (n, 2)), track, np.full((n, frames), 0.2, np.float32), track * 0,
                        np.arange(frames) + 0.5, "converged")


def dose_weights(frames=12, shells=50, groups=1):
    k, dose = np.linspace(0, 0.5, shells), np.arange(frames) + 0.5
    weight = np.broadcast_to(normalise(exposure_amplitude(dose, k), "sum"), (groups, frames, shells))
    one = np.ones((groups, frames))
    return DoseWeights(weight, k, dose, np.broadcast_to(4 * dose, (groups, frames)), one, one, 0.1 * one, "sum", "fit")


def rows(n=5, strength=None, **values):
    return [MovieRow(**dict(dict(key="m%d" % i, micrograph="M/m%d.mrc" % i, n_particles=10, state="polished", reason="", fit="converged", strength=strength,
                                 path_length_angstrom=10.0 + i, early_angstrom=3.0, local_rms_angstrom=0.5, sd_angstrom=0.2), **values)) for i in range(n)]


# ---- correlation ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("frames, value", [(5, 0.1), (1, 0.1), (3, 0.0)])
def test_fcc(frames, value):
    figure = fcc.fcc_figure(fcc_table(frames, value=value), group=1)
    image, curves = drawn(figure)[:2]
    assert image.images[0].get_array().shape == (frames, 20) and len(curves.lines) == frames + 1
    assert ("do not show" in figure.get_suptitle()) == (value == 0.0)


def test_the_resolution_that_is_seen_is_where_certainty_ends():
    table = fcc_table(shells=101, components=1000.0)               # standard error of a frame 0.022, of all five 0.01
    cross = np.where(table.frequency_per_angstrom <= 0.25, 0.1, 0.0)
    seen = fcc.seen_to_angstrom(replace(table, cross=np.broadcast_to(cross, table.cross.shape)))
    assert 3.7 <= seen <= 4.01                                     # smoothing over five shells reaches two further
    assert np.isnan(fcc.seen_to_angstrom(replace(table, cross=0 * table.cross)))


# ---- weights ----------------------------------------------------------------------------------------------------------------------

def test_labels_of_bands_keep_apart():
    assert fcc.apart([0.5, 0.1, 0.12, 0.11], 0.05) == pytest.approx([0.5, 0.1, 0.2, 0.15]) and fcc.apart([], 0.1) == []


@pytest.mark.parametrize("step, place", [(50.0, ("left", "bottom")), (-50.0, ("right", "top"))])
def test_the_mean_is_named_beyond_its_end(step, place):
    track = np.broadcast_to(np.array([0.0, step, 2 * step])[None, :, None], (4, 3, 2))
    found = replace(tracks(4, 3), displacement_yx_angstrom=track)
    label = next(text for axes in drawn(trajectories.trajectories_figure(found)) for text in axes.texts if text.get_text() == "mean")
    assert (label.get_ha(), label.get_va()) == place


def test_weights_end_where_asked_and_are_relative_to_an_even_share():
    shape, group = (1, 4, 50), np.ones((1, 4))
    even = DoseWeights(np.ones(shape), np.linspace(0, 1, 50), np.arange(4.0), 10 * group, group, group, 0 * group, "sum", "fit")
    image = drawn(weights.weights_figure(even, highest_per_angstrom=0.3))[0]
    assert image.get_xlim()[1] <= 0.3 and np.allclose(image.images[0].get_array(), 1.0)


def test_measured_weights_that_are_the_standard_curve_lie_on_it():
    figure = weights.weights_figure(dose_weights())
    table = figure.tables["weights"]
    assert np.allclose(table["relative_weight"], table["standard_curve"]) and "frame 1 weighs most" in figure.get_suptitle()
    curves = drawn(figure)[1].lines
    assert np.allclose(curves[0].get_ydata(), curves[1].get_ydata())
    frames = figure.tables["frames"]
    assert len(frames["b_factor_A2"]) == 12 and np.allclose(frames["scale_error"], 0.1)


def test_weights_of_one_frame():
    assert drawn(weights.weights_figure(dose_weights(frames=1)))


# ---- trajectories -----------------------------------------------------------------------------------------------------------------

def test_trajectories_start_at_the_particles_and_go_along_the_displacement():
    one = tracks(1)
    axes = drawn(trajectories.trajectories_figure(one, exaggeration=10, uncertainty=False))[0]
    segments = axes.collections[0].get_segments()
    expected = one.position_yx_angstrom[0] + 10 * (one.displacement_yx_angstrom[0] - one.displacement_yx_angstrom[0, 0])
    assert np.allclose(segments[-1][1], expected[-1, ::-1] / 10) and np.allclose(segments[0][0], one.position_yx_angstrom[0, ::-1] / 10)


def test_discs_have_the_radius_of_one_exaggerated_standard_deviation():
    axes = drawn(trajectories.trajectories_figure(tracks(), exaggeration=10, kinds=("motion",)))[0]
    discs = [c for c in axes.collections if type(c).__name__ == "EllipseCollection"]
    assert len(discs) == trajectories.DISCS and np.allclose(discs[0]._widths * 2, 2 * 0.2 * 10 / 10)          # matplotlib keeps half widths
    plain = drawn(trajectories.trajectories_figure(tracks(), uncertainty=False))[0]
    assert not [c for c in plain.collections if type(c).__name__ == "EllipseCollection"]


@pytest.mark.parametrize("n, sd, exaggeration, shown", [(12, 0.2, 10, True), (12, 2.0, 200, False), (300, 0.5, 200, True), (300, 1.0, 200, False)])
def test_discs_that_would_hide_the_field_are_told_instead(n, sd, exaggeration, shown):
    """The field is 4000 A: discs of 400 A, or of 200 A where 300 particles are 230 A apart."""
    found = replace(tracks(n), deviation_sd_angstrom=np.full((n, 5), sd, np.float32))
    axes = drawn(trajectories.trajectories_figure(found, exaggeration=exaggeration, kinds=("motion",)))[0]
    assert any(type(c).__name__ == "EllipseCollection" for c in axes.collections) == shown
    said = [box.txt.get_text() for box in axes.artists if hasattr(box, "txt") and hasattr(box.txt, "get_text")]
    assert said == [] if shown else said == ["uncertainty %s Å: too large to draw" % style.plain(sd)]


@pytest.mark.parametrize("moving, words", [(1.0, "1 Å of motion"), (0.0, "1 Å of motion")])
def test_the_scale_bar_is_there_whether_particles_move_or_not(moving, words):
    found = tracks()
    found = replace(found, displacement_yx_angstrom=moving * found.displacement_yx_angstrom)
    axes = drawn(trajectories.trajectories_figure(found, exaggeration=200, kinds=("local",)))[0]
    bars = [box for box in axes.artists if hasattr(box, "size_bar")]
    assert [box.txt_label.get_text() for box in bars] == [words]


@pytest.mark.parametrize("n, frames", [(6, 5), (1, 2), (2, 1), (500, 3)])
def test_trajectories_of_any_number(n, frames):
    assert drawn(trajectories.trajectories_figure(tracks(n, frames)))


def test_who_moves_unlike_the_neighbours_is_circled():
    odd = tracks(30, 8)
    odd.displacement_yx_angstrom[7] *= -4
    track = trajectories.from_first_frame(odd)
    assert neighbours.outliers(odd.position_yx_angstrom, track).tolist() == [7]
    assert "1 unlike the neighbours" in trajectories.trajectories_figure(odd).get_suptitle()
    assert not len(neighbours.outliers(*(lambda t: (t.position_yx_angstrom, trajectories.from_first_frame(t)))(tracks(30, 8))))


def test_a_fit_that_did_not_converge_is_said():
    assert "iteration limit" in trajectories.trajectories_figure(replace(tracks(), stop_reason="iteration limit")).get_suptitle()


def test_the_micrograph_lies_where_the_particles_are():
    grey = np.zeros((40, 50))
    grey[30, 10] = 100.0
    background = images.as_background(grey, 100.0)
    axes = drawn(trajectories.trajectories_figure(tracks(), background=background))[0]
    x0, x1, y0, y1 = axes.images[0].get_extent()
    assert (x0, x1, y0, y1) == (-5.0, 495.0, -5.0, 395.0)                      # nm; pixel (30, 10) is centred at x = 100, y = 300 nm
    assert axes.images[0].origin == "lower" and axes.get_xlim() == (x0, x1)


# ---- motion of many ---------------------------------------------------------------------------------------------------------------

def test_motion_of_movies_with_different_frames():
    statistics = motion_statistics([tracks(20, 6), tracks(10, 6), tracks(3, 4)])
    figure = motion.motion_figure(statistics)
    assert "33 particles" in figure.get_suptitle() and drawn(figure) and len(figure.tables["speed"]["rms_angstrom"]) == 5
    assert len(figure.tables["particles"]["early_angstrom"]) == 33


def test_motion_of_one_particle_that_does_not_move():
    still = tracks(1, 2)
    assert drawn(motion.motion_figure(motion_statistics([replace(still, displacement_yx_angstrom=0 * still.displacement_yx_angstrom)])))


@pytest.mark.parametrize("some", [rows(1), rows(5), rows(1000), rows(3, path_length_angstrom=None, state="to do"), rows(4, strength=0.5), []])
def test_movies_side_by_side(some):
    figure = movies.movies_figure(some)
    assert drawn(figure) and len(figure.tables["movies"]["key"]) == len(some)


def test_a_movie_that_moves_far_more_than_others_is_named():
    axes = drawn(movies.movies_figure(rows(9) + rows(1, path_length_angstrom=500.0)))[0]
    assert [text.get_text() for text in axes.texts] == ["movie 10"]


def test_like_reasons_count_together_whatever_the_movies_are_called():
    failed = [row._replace(state="failed", reason="movie /raw/m%d.tiff is damaged (corrupted): copy it again" % i) for i, row in enumerate(rows(12))]
    assert movies.common_reasons(failed) == [("movie … is damaged (corrupted): copy it again", 12)]


def test_reasons_of_failures_are_counted():
    failed = [row._replace(state="failed", reason="%s ends early: copy it again" % row.micrograph) for row in rows(3)]
    figure = movies.states_figure(failed + rows(2), OrderedDict([("movie failed: x", 30), ("outside", 4)]))
    texts = [text.get_text() for axes in drawn(figure) for text in axes.texts]
    assert "3: … ends early: copy it again" in texts and "30: their movie failed" in texts and "4: outside" in texts
    assert figure.get_suptitle().startswith("5 movies: 2 polished, 3 failed")
    assert figure.tables["failed movies"]["micrograph"].tolist() == ["M/m0.mrc", "M/m1.mrc", "M/m2.mrc"]
    assert not any(axes.spines["left"].get_visible() for axes in drawn(figure)[1:])                # it would run through the counts
    assert len(drawn(movies.states_figure(rows(2)))) == 1


# ---- particles --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("before", [False, True])
def test_particles_before_and_after(before):
    after = np.random.default_rng(0).normal(size=(3, 32, 32))
    old = after[:, ::2, ::2] if before else None
    axes, = drawn(particles.gallery_figure(old, after, 2.0, 1.0))
    lines = {label.get_text(): y for y, label in zip(axes.get_yticks(), axes.get_yticklabels())}
    assert list(lines) == (["before", "after"] if before else ["after"])
    for image, place in zip(axes.images, [(x, name) for x in range(3) for name in lines]):
        left, right, bottom, top = image.get_extent()
        assert 0.5 * (left + right) == place[0] + 0.5 and 0.5 * (top + bottom) == lines[place[1]] and bottom > top         # y counts downwards
        shown = image.get_array()
        assert shown.shape == ((32, 32) if place[1] == "after" else (16, 16)) and np.ptp(shown) == 1.0
    assert len(axes.images) == 3 * len(lines)
    assert len(drawn(particles.spectra_figure(old, after, 2.0, 1.0))[0].lines) == (2 if before else 1)


def test_white_noise_has_a_flat_spectrum():
    k, power = particles.radial_power(np.random.default_rng(0).normal(size=(20, 64, 64)), 1.5)
    assert np.allclose(power[2:] / 64 ** 2, 1.0, atol=0.15) and np.isclose(k[1], 1 / (64 * 1.5))


def test_ring_correlation_sees_through_recentring_and_finds_no_likeness_in_noise():
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(2, 6, 48, 48))
    assert np.allclose(particles.ring_correlation(one, np.roll(one, (3, -5), axis=(1, 2)))[1:], 1.0, atol=1e-6)
    assert abs(particles.ring_correlation(one, other)[4:].mean()) < 0.12


# ---- prior and verdict ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kernel", ["matern", "exponential"])
def test_prior(kernel):
    figure = prior.hyperparameters_figure(replace(DEFAULT_HYPERPARAMETERS, kernel=kernel))
    assert drawn(figure) and "150 nm" in figure.get_suptitle()
    assert figure.tables["correlation"]["correlation"][0] == 1.0


def judgement(word="gain", gain=0.08, resolution=Change(3.6, 3.4, 0.05)):
    finding = Finding(word, gain, None if gain is None else 0.01, "Trajectories win.")
    return Verdict(word, "It helps.", finding, finding, finding, 20.0, 4.0, resolution, ("The gain looks wrong.",), 100, 2)


def test_the_verdict_is_said_in_words_and_drawn_with_errors():
    figure = verdict.verdict_figure(judgement())
    words, gains, resolutions = drawn(figure)
    said = " ".join(text.get_text() for text in words.texts)
    assert "GAIN" in said and "It helps." in said and said.count("Trajectories win.") == 1
    assert [text.get_text() for text in gains.texts] == ["+8.0 ± 1.0 %"] * 3
    low, high = gains.containers[0].get_children()[-1].get_segments()[0][:, 0]
    assert np.isclose(low, 6.0) and np.isclose(high, 10.0)
    assert [label.get_text() for label in resolutions.get_xticklabels()] == ["expected\n3.60 → 3.40"] and resolutions.yaxis_inverted()
    assert "100 particles, 2 movies" in said and "B-factor lower by 20.0 ± 4.0 Å²" in [text.get_text() for text in resolutions.texts]


def test_a_verdict_without_trajectories_counts_nothing():
    words = drawn(verdict.verdict_figure(replace(judgement(), particles=0, movies=0, b_factor_A2=-3.0)))[0]
    assert not [text.get_text() for text in words.texts if "particle" in text.get_text()]


def test_a_verdict_that_could_not_be_given():
    words, gains, resolutions = drawn(verdict.verdict_figure(judgement("not judged", None, None)))
    assert [text.get_text().strip() for text in gains.texts] == ["not judged"] * 3 and "not known" in resolutions.texts[0].get_text()


def both(**changed):
    k = np.linspace(0, 0.4, 41)
    return replace(Reconstruction(1, 800, "D2", "input motion", tuple(k), tuple(np.exp(-60 * k ** 2)), tuple(np.exp(-50 * k ** 2)), 5.0, 4.6, 0.1), **changed)


def test_a_reconstruction_shows_both_curves_and_where_they_fall():
    figure = reconstruction.reconstruction_figure(both())
    axes = drawn(figure)[0]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [1 / line.get_xdata()[0] for line in marks] == pytest.approx([5.0, 4.6]) and "better by 0.40" in figure.get_suptitle()
    assert list(figure.tables["fsc"]) == ["frequency_per_angstrom", "fsc_before", "fsc_after"]


@pytest.mark.parametrize("changed, lines", [(dict(before="", fsc_before=(), before_angstrom=None, error_angstrom=None), 1), (dict(after_angstrom=None), 2),
                                            (dict(fault="no image", frequency_per_angstrom=(), fsc_before=(), fsc_after=()), 0)])
def test_a_reconstruction_that_found_less(changed, lines):
    axes = drawn(reconstruction.reconstruction_figure(both(**changed)))[0]
    assert sum(len(line.get_xdata()) == 41 for line in axes.lines) == lines


def test_reconstructions_are_in_the_figure_of_the_verdict():
    figure = verdict.verdict_figure(replace(judgement(), reconstructions=(both(reference=0), both(), both(fault="no image", error_angstrom=None))))
    assert [label.get_text() for label in drawn(figure)[2].get_xticklabels()] == [
        "expected\n3.60 → 3.40", "reconstructed 1\n5.00 → 4.60", "reconstructed 2\n5.00 → 4.60"]


def test_numbers_of_close_places_keep_apart():
    many = replace(judgement(), reconstructions=tuple(both(reference=r, before_angstrom=13.95, after_angstrom=13.94) for r in range(4)))
    for found in (many, replace(many, reconstructions=many.reconstructions[:2])):
        axes = drawn(verdict.verdict_figure(found), size=(1000, 560))[2]
        spans = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in zip(spans, spans[1:]))


# ---- style and files --------------------------------------------------------------------------------------------------------------

def test_resolution_ticks_keep_apart():
    figure = style.ResultFigure()
    axes = figure.subplots()
    for last in (0.05, 0.25, 0.5, 1.0):
        style.resolution_axis(axes, np.linspace(0, last, 50))
        ticks = axes.get_xticks()
        assert len(ticks) >= 3 and np.diff(ticks).min() > 0.08 * last


def test_ticks_are_few():
    figure = style.ResultFigure(8.0, 6.0)
    axes = figure.subplots()
    axes.plot([0.0, 8.3], [0.0, 41.0])
    FigureCanvasAgg(figure).draw()
    for ticks, (low, high) in ((axes.get_xticks(), axes.get_xlim()), (axes.get_yticks(), axes.get_ylim())):
        assert 4 <= ((ticks >= low) & (ticks <= high)).sum() <= 7


@pytest.mark.parametrize("number, text", [(0.01234, "0.012"), (3.14159, "3.1"), (27.4, "27"), (1234.0, "1234"), (0.0, "0"), (np.nan, "?")])
def test_numbers_in_sentences(number, text):
    assert style.plain(number) == text


def test_style_does_not_leak_into_the_host():
    import matplotlib
    before = dict(matplotlib.rcParams)
    drawn(weights.weights_figure(dose_weights()))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("extension, start", [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_figure_is_saved(tmp_path, extension, start):
    path = export.save_figure(prior.hyperparameters_figure(DEFAULT_HYPERPARAMETERS), tmp_path / ("prior." + extension))
    assert path.read_bytes().startswith(start) and path.stat().st_size > 5000


def test_the_numbers_behind_a_figure_are_saved(tmp_path):
    found = tracks(3, 4)
    written = export.save_data(trajectories.trajectories_figure(found), tmp_path / "tracks.png")
    assert [path.name for path in written] == ["tracks.csv"]
    with open(str(written[0]), newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12 and lines[5]["row"] == "2" and lines[5]["frame"] == "2"
    assert np.isclose(float(lines[5]["displacement_x_angstrom"]), found.displacement_yx_angstrom[1, 1, 1], rtol=1e-5)
    assert np.isclose(float(lines[5]["x_angstrom"]), found.position_yx_angstrom[1, 1], rtol=1e-5)
    several = export.save_data(weights.weights_figure(dose_weights()), tmp_path / "weights.png")
    assert [path.name for path in several] == ["weights_weights.csv", "weights_frames.csv"]


@pytest.mark.parametrize("content", [b"", b"no MRC file at all" * 99, b"\x01" * 4096, "cut off"])
def test_images_that_cannot_be_read_are_not_shown(tmp_path, content):
    """Spider, HDF and the like are kept by Scipion; copies may have been interrupted."""
    path = tmp_path / "a.mrcs"
    if content == "cut off":
        with mrcfile.new(str(path)) as file:
            file.set_data(np.ones((4, 32, 32), np.float32))
        content = path.read_bytes()[:3000]
    path.write_bytes(content)
    assert images.read_particles([(str(path), 3)]) is None and images.read_background(path) is None
    drawn(averages.average_figure("a", {"weighted": str(path)}, 1.0))


def test_an_optics_group_without_movies_is_told_from_one_that_shows_nothing():
    table = fcc_table()
    empty = replace(table, **{name: np.concatenate([getattr(table, name)[:1], np.zeros_like(getattr(table, name)[1:])]) for name in (
        "cross", "power_movie", "power_reference", "components")})
    assert fcc.fcc_figure(empty, 0).get_suptitle() != fcc.fcc_figure(empty, 1).get_suptitle() == fcc.NO_MOVIE
