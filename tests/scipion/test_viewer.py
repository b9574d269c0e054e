"""Every button of the viewer gives a figure, before there are results a sentence."""
import pytest
from pyworkflow.viewer import DESKTOP_TKINTER, MessageView

from refmotion_plugin.viewers import DoseWeightsViewer, ReferenceMotionCorrectionViewer

BUTTONS = ("showMotion", "showTrajectories", "showWeights", "showCorrelation")


def viewer_of(project, protocol):
    viewer = ReferenceMotionCorrectionViewer(project=project, protocol=protocol)
    viewer.setProtocol(protocol)
    return viewer


def test_figures_of_a_finished_run(correction, in_project, fake_engine, tmp_path):
    in_project[0].launchProtocol(correction, wait=True)
    viewer = viewer_of(in_project[0], correction)
    for name in BUTTONS:
        views = viewer._getVisualizeDict()[name]()
        path = tmp_path / (name + ".png")
        views[0].savefig(str(path))
        assert path.stat().st_size > 10000, name
    assert viewer._showReport()[0].path.name == "report.html"
    viewer.movieNumber.set(7)
    message = viewer._showTrajectories()[0]
    assert isinstance(message, MessageView) and "from 1 to 2" in message.getMessage()
    weights = DoseWeightsViewer(project=in_project[0])._visualize(correction.outputDoseWeights)[0]
    weights.savefig(str(tmp_path / "w.png"))
    assert (tmp_path / "w.png").stat().st_size > 10000


@pytest.mark.parametrize("name", BUTTONS + ("showReport", "showParticles"))
def test_before_there_is_anything_to_show(correction, in_project, name):
    in_project[0].saveProtocol(correction)
    views = viewer_of(in_project[0], correction)._getVisualizeDict()[name]()
    assert isinstance(views[0], MessageView) and views[0].getMessage().endswith(".")


def test_the_host_finds_the_viewers(correction):
    import pyworkflow as pw
    from refmotion_plugin.objects import EmpiricalDoseWeights
    domain = pw.Config.getDomain()
    assert ReferenceMotionCorrectionViewer in domain.findViewers(correction, DESKTOP_TKINTER)
    assert DoseWeightsViewer in domain.findViewers(EmpiricalDoseWeights(), DESKTOP_TKINTER)
