"""Buttons of the viewer of averages, after a real run on tiny movies and before any."""
import numpy as np
import pytest
from pyworkflow.viewer import DESKTOP_TKINTER, MessageView

from refmotion_plugin.contract.averages import AverageState
from refmotion_plugin.figures.averages import average_figure, average_states_figure, patch_power
from refmotion_plugin.viewers import AverageMoviesViewer

from .test_protocol_average import averaging, finished, imported  # noqa: F401
from .test_viewer import is_drawn


def viewer_of(project, protocol):
    viewer = AverageMoviesViewer(project=project, protocol=protocol)
    viewer.setProtocol(protocol)
    return viewer


def test_buttons(imported, averaging, tmp_path):     # noqa: F811
    project, protocol = imported[1], averaging(inputDoseWeights=(imported[3], "outputDoseWeights"))
    project.saveProtocol(protocol)
    viewer = viewer_of(project, protocol)
    for name in ("showAverage", "showStates", "showMicrographs"):
        message = viewer._getVisualizeDict()[name]()[0]
        assert isinstance(message, MessageView) and message.getMessage().endswith(".")
    viewer = viewer_of(project, finished(project, protocol))
    for name in ("showAverage", "showStates", "showWeights"):
        view = viewer._getVisualizeDict()[name]()[0]
        view.savefig(str(tmp_path / "figure.png"))
        assert is_drawn(tmp_path / "figure.png") and view.savedata(tmp_path / "figure"), name
    assert "dose-weighted and unweighted" in viewer._showAverage()[0].figure.get_suptitle()
    viewer.movieNumber.set(9)
    assert "from 1 to 3" in viewer._showAverage()[0].getMessage()
    without = viewer_of(project, averaging())
    assert "standard exposure curve" in without._showWeights()[0].getMessage()
    import pyworkflow as pw
    assert AverageMoviesViewer in pw.Config.getDomain().findViewers(protocol, DESKTOP_TKINTER)


def test_failed_movies_are_counted():
    movies = [AverageState("a", "M/a.mrc", "done", ""), AverageState("b", "M/b.mrc", "failed", "M/b.mrc ends early: copy it again")]
    figure = average_states_figure(movies)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "1: … ends early: copy it again" in texts and "1 averaged" in texts and figure.get_suptitle() == "1 of 2 movies averaged"


def test_averages_that_are_gone(tmp_path):
    figure = average_figure("m.mrc", {"weighted": tmp_path / "gone.mrc"}, 1.65414)
    assert figure.get_suptitle().endswith("of 1.654 Å per pixel")
    assert "cannot be read" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("shape", [(300, 520), (48, 64)])
def test_the_spectrum_of_white_noise_is_flat(shape):
    k, power = patch_power(np.random.default_rng(0).normal(size=shape).astype(np.float32), 1.2)
    assert len(k) == len(power) and np.isclose(k[1], 1 / (2 * len(k) * 1.2))
    assert np.allclose(power[6:] / power[6:].mean(), 1.0, atol=0.5) and np.isfinite(power).all()
