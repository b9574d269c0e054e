"""Every button of the viewers gives a figure or a sentence; windows open where there is a display."""
import os
import shutil
import subprocess
import time

import numpy as np
import pytest
from matplotlib.image import imread
from pyworkflow.viewer import DESKTOP_TKINTER, MessageView

from refmotion_plugin.contract.layout import JobLayout, mark_done
from refmotion_plugin.contract.results import JobResults, SearchFinding
from refmotion_plugin.contract.spec import DEFAULT_HYPERPARAMETERS
from refmotion_plugin.contract.store import save_hyperparameters, save_thumbnail
from refmotion_plugin.contract.verdict import Finding, Reconstruction, Verdict, save_verdict
from refmotion_plugin.objects import EmpiricalDoseWeights, MotionHyperparameters
from refmotion_plugin.viewers import DoseWeightsViewer, HyperparametersViewer, ReferenceMotionCorrectionViewer, movie_table
from refmotion_plugin.viewers.movie_browser import MovieBrowser

from .conftest import correction_of, use_fake_engine

FIGURES = ("showMotion", "showMovies", "showStates", "showTrajectories", "showWeights", "showCorrelation", "showPrior", "showVerdict", "showReconstruction", "showGallery",
           "showSpectra")


def viewer_of(project, protocol):
    viewer = ReferenceMotionCorrectionViewer(project=project, protocol=protocol)
    viewer.setProtocol(protocol)
    return viewer


@pytest.fixture(scope="module")
def finished_run(imported, tmp_path_factory):
    """A run whose second movie failed, with what the stand-in engine does not write: markers, a verdict, a thumbnail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(imported[0].path)
        use_fake_engine(tmp_path_factory.mktemp("engine"), patch)
        patch.setenv("FAKE_ENGINE", "fail:m1")
        protocol = correction_of(imported)
        imported[0].launchProtocol(protocol, wait=True)
        layout = JobLayout(protocol._jobFolder())
        finding = Finding("gain", 0.05, 0.01, "Trajectories win.")
        save_verdict(layout.verdict, Verdict("gain", "It helps.", finding, finding, finding, None, None, None, (), 6, 1,
                                             (Reconstruction(0, 6, "C1", "input motion", (0.0, 0.1, 0.2), (1.0, 0.5, 0.0), (1.0, 0.6, 0.1), 6.0, 5.5, 0.2),)))
        shutil.copyfile(str(layout.folder / "stack_0.mrcs"), str(layout.polished("m0")))
        mark_done(layout.done("m0", "polish"), "x", references=[{"reference": 0, "rows": [0, 1, 2], "pixel_angstrom": 1.1, "box_px": 32, "rejected": []}])
        save_thumbnail(layout.thumbnail("m0"), np.arange(48, dtype=np.uint8).reshape(6, 8), 40.0)
    return protocol


@pytest.fixture
def finished(finished_run, in_project):
    """The viewer of that run."""
    return viewer_of(in_project[0], finished_run)


def is_drawn(path):
    """Whether a picture holds more than a white page with a few words."""
    grey = imread(str(path))[..., :3].mean(axis=2)
    return (grey < 0.98).mean() > 0.01 and len(np.unique(grey)) > 20


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_a_finished_run(finished, tmp_path, name):
    view = finished._getVisualizeDict()[name]()[0]
    path = tmp_path / (name + ".png")
    view.savefig(str(path))
    assert is_drawn(path)
    assert view.savedata(tmp_path / name) or name == "showGallery"
    assert finished.protocol.getObjLabel() in view.title


def test_other_buttons_of_a_finished_run(finished):
    assert finished._showReport()[0].path.name == "report.html"
    finished.movieNumber.set(7)
    message = finished._showTrajectories()[0]
    assert isinstance(message, MessageView) and "from 1 to 1" in message.getMessage()
    finished.opticsGroup.set(3)
    assert "no optics group with number 3" in finished._getVisualizeDict()["showWeights"]()[0].getMessage()
    assert "no search" in finished._getVisualizeDict()["showSearch"]()[0].getMessage()


def test_a_search_is_shown(finished, monkeypatch, tmp_path):
    trials = [dict(kind="ray", family="default prior", ray=0, iteration=n, strength=0.5 * 4 ** n, theta_degree=45.0, correlation_distance_angstrom=1500.0,
                   gain=50.0 / (1 + n), gain_error=6.0, activity_angstrom=9.0 / (1 + n)) for n in range(4)]
    found = SearchFinding("default prior", "", True, 52.0, 6.0, None, 70, 1, ["m0"], {"default prior": (0.0, 0.0), "rough field": (4.0, 2.0)}, {}, {}, 0.0, trials)
    monkeypatch.setattr(JobResults, "search", lambda self: found)
    view = finished._getVisualizeDict()["showSearch"]()[0]
    view.savefig(str(tmp_path / "search.png"))
    assert is_drawn(tmp_path / "search.png") and view.savedata(tmp_path / "search") and "52 ± 6" in view.figure.get_suptitle()


def test_all_plots_are_saved_with_their_numbers(finished):
    finished.saveFormat.set(2)
    view = finished._saveAll()[0]
    names = sorted(os.path.basename(str(path)) for path in view.files)
    assert {"fcc.svg", "fcc.csv", "weights.svg", "weights_frames.csv", "verdict.svg", "states.svg", "trajectories_m0.csv"} <= set(names)
    assert all(os.path.getsize(str(path)) > 0 for path in view.files) and view.folder == finished.protocol._getExtraPath("figures")
    finished.saveFormat.set(0)
    finished.saveData.set(False)
    assert all(str(path).endswith(".png") and is_drawn(path) for path in finished._saveAll()[0].files)


def test_a_damaged_file_costs_its_own_plot_alone(finished):
    layout = finished._results().layout
    kept = {path: path.read_bytes() for path in (layout.verdict, layout.trajectories("m0"))}
    try:
        for path in kept:
            path.write_bytes(b"{")
        saved, told = finished._saveAll()
        assert "verdict" in told.getMessage().lower() and str(layout.verdict) in told.getMessage()
        assert any("weights" in str(path) for path in saved.files)
        assert str(layout.trajectories("m0")) in finished._showTrajectories()[0].getMessage()
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


@pytest.mark.parametrize("name", FIGURES + ("showReport", "showParticles", "showMovieList", "showSearch", "saveAll"))
def test_before_there_is_anything_to_show(correction, in_project, name):
    in_project[0].saveProtocol(correction)
    views = viewer_of(in_project[0], correction)._getVisualizeDict()[name]()
    assert isinstance(views[0], MessageView) and views[0].getMessage().endswith(".")


# ---- list of movies ---------------------------------------------------------------------------------------------------------------

def test_the_list_of_movies_has_numbers_states_and_reasons(finished, tmp_path):
    browser = finished._showMovieList()[0]
    first, second = browser.table
    assert (first["state"], second["state"]) == ("polished", "failed") and "ends after frame 3" in second["reason"]
    assert movie_table.cells(first)[0] == "1" and movie_table.cells(second)[4] == "" and float(movie_table.cells(first)[4]) > 0
    assert "Exaggerate" not in browser.title and "one frame" not in browser.figure_of(first["key"]).get_suptitle()
    drawn = browser.figure_of(first["key"], exaggeration=3.0, kinds=("motion",))
    assert "× 3" in drawn.axes[0].get_title(loc="left") and drawn.axes[0].images                      # over the thumbnail
    text = browser.figure_of(second["key"]).axes[0].texts[0].get_text()
    assert "copy it again" in text.replace("\n", " ")


def test_the_list_is_sorted_and_filtered():
    table = [dict(micrograph=name, state=state, reason="", path_length_angstrom=path, key=name)
             for name, state, path in (("a", "aligned", 3.0), ("b", "failed", None), ("c", "polished", 1.0))]
    order = lambda lines: "".join(line["key"] for line in lines)            # noqa: E731
    assert order(movie_table.sorted_by(table, "path_length_angstrom")) == "cab"
    assert order(movie_table.sorted_by(table, "path_length_angstrom", descending=True)) == "acb"
    assert order(movie_table.matching(table, "FAIL")) == "b" and order(movie_table.matching(table, " ")) == "abc"


def test_columns_are_as_wide_as_their_contents():
    line = dict({column.name: None for column in movie_table.COLUMNS}, micrograph="a long name of a movie.mrc", state="failed", reason="r" * 500)
    found = dict(zip([column.name for column in movie_table.COLUMNS], movie_table.widths([line], lambda text: 9 * len(text), lambda text: 7 * len(text))))
    assert found["micrograph"] == 7 * len(line["micrograph"]) + movie_table.MARGIN_PX and found["n_particles"] == 9 * len("particles") + movie_table.MARGIN_PX
    assert found["reason"] == movie_table.WIDEST_PX["reason"]
    assert movie_table.widths([], len, len)[0] == 1 + movie_table.MARGIN_PX


# ---- objects ----------------------------------------------------------------------------------------------------------------------

def test_viewers_of_objects(finished, in_project, tmp_path):
    prior = MotionHyperparameters()
    save_hyperparameters(tmp_path / "prior.json", DEFAULT_HYPERPARAMETERS)
    prior.setFileName(str(tmp_path / "prior.json"))
    weights = EmpiricalDoseWeights()
    weights.setFileName(finished.protocol.outputDoseWeights.getFileName())
    for viewer, item in ((DoseWeightsViewer, weights), (HyperparametersViewer, prior)):
        view = viewer(project=in_project[0])._visualize(item)[0]
        view.savefig(str(tmp_path / "figure.png"))
        assert is_drawn(tmp_path / "figure.png") and view.savedata(tmp_path / "figure")
        item.setFileName(str(tmp_path / "gone"))
        message = viewer(project=in_project[0])._visualize(item)[0]
        assert isinstance(message, MessageView) and "gone" in message.getMessage()


def test_the_host_finds_the_viewers(correction):
    import pyworkflow as pw
    domain = pw.Config.getDomain()
    assert ReferenceMotionCorrectionViewer in domain.findViewers(correction, DESKTOP_TKINTER)
    assert DoseWeightsViewer in domain.findViewers(EmpiricalDoseWeights(), DESKTOP_TKINTER)
    assert HyperparametersViewer in domain.findViewers(MotionHyperparameters(), DESKTOP_TKINTER)


# ---- windows, where Xvfb is installed ---------------------------------------------------------------------------------------------

@pytest.fixture
def tk_root(monkeypatch):
    """A Tk root on a virtual display of its own."""
    tkinter = pytest.importorskip("tkinter")
    if not shutil.which("Xvfb"):
        pytest.skip("Xvfb is not installed")
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x1000x24"], pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()
        monkeypatch.setenv("DISPLAY", ":" + number)
        root = tkinter.Tk()
        root.withdraw()
        yield root
        root.destroy()
    finally:
        server.terminate()
        server.wait()


def updated(root, seconds=0.5):
    """Let the window work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        root.update()
        time.sleep(0.02)


def test_windows_open_and_follow_the_mouse(finished, tk_root):
    view = finished._getVisualizeDict()["showWeights"]()[0]
    view._root = tk_root
    assert view.show().title().startswith("Dose weights")
    browser = MovieBrowser(finished._results(), "Movies", tk_root)
    window = browser.show()
    updated(tk_root)
    assert window.tree.get_children() == ("m0", "m1") and "m0" in window.shown.get_suptitle()
    assert window.tree.column("reason", "width") >= window.tree.column("reason", "minwidth") > 200          # scrolled to, not squeezed
    window.tree.selection_set("m1")
    updated(tk_root)
    assert "copy it again" in window.shown.axes[0].texts[0].get_text().replace("\n", " ")
    window.tree.selection_set("m0")
    window.kind.set("local")
    window.exaggeration.set(20)
    window._slid("20")
    updated(tk_root)
    assert len(window.shown.axes) == 2 and "× 20" in window.shown.axes[0].get_title(loc="left")      # one panel and the colour bar
    window.filter.set("failed")
    updated(tk_root)
    assert window.tree.get_children() == ("m1",)
    window.filter.set("")
    window.sort("path_length_angstrom")
    assert window.tree.get_children() == ("m0", "m1")
