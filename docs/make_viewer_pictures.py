"""Pictures of the viewers for docs/images, from the real Scipion window on a virtual display.

    python docs/make_picture_project.py OUT
    xvfb-run -s "-screen 0 1600x1200x24" python docs/make_viewer_pictures.py OUT [--images docs/images] [--size 1000x680]
    xvfb-run -s "-screen 0 1600x1200x24" python docs/make_viewer_pictures.py OUT --label "two movies damaged" --only states movie_list

``OUT`` may be what ``make demo`` wrote, too. Opens its project, and the viewer of the first run of each protocol as *Analyze results* does; presses every button of the form, and
takes each window with ImageMagick's import. Needs xvfb and imagemagick.
"""
import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from refmotion_plugin.headless import prepare_environment

BUTTONS = {"showVerdict": "verdict", "showMovieList": "movie_list", "showMotion": "motion", "showMovies": "movies", "showStates": "states",
           "showTrajectories": "trajectories", "showSearch": "search", "showPrior": "prior", "showCorrelation": "fcc", "showWeights": "weights",
           "showReconstruction": "fsc", "showGallery": "particles", "showSpectra": "power", "showAverage": "averages"}
FORMS = {"ReferenceMotionCorrectionViewer": "viewer_form", "AverageMoviesViewer": "viewer_form_average"}
COLOURS, MOST_BYTES = (256, 64, 32, 16), 195000
SMALL = {"movie_list": "1280x720"}


def main():
    """Make the pictures."""
    options = parse_options()
    demo = Path(options.demo).resolve()
    os.environ.setdefault("SCIPION_HOME", str(demo / "scipion" / "home"))
    os.environ.setdefault("SCIPION_USER_DATA", str(demo / "scipion" / "user"))
    prepare_environment(demo / "scipion")
    images = Path(options.images).resolve()
    images.mkdir(parents=True, exist_ok=True)
    window = open_project(demo, options.project)
    runs = [run for run in reversed(list(window.getViewWidget().project.getRuns())) if options.label in (None, run.getObjLabel())]
    for protocol in {run.getClassName(): run for run in runs}.values():
        for viewer in viewers_of(window, protocol):
            photograph_viewer(window, viewer, protocol, images, options)


def parse_options():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("demo", help="folder that make_picture_project.py or make demo wrote")
    parser.add_argument("--project", default="demo", help="name of the Scipion project in it")
    parser.add_argument("--label", help="label of the run (none: the first of each protocol)")
    parser.add_argument("--images", default="docs/images", help="folder to write to")
    parser.add_argument("--size", default=None, help="WIDTHxHEIGHT of the windows (none: as they open)")
    parser.add_argument("--only", nargs="*", help="names of pictures (none: all)")
    return parser.parse_args()


def open_project(demo, name):
    """The host's project window; its loop is turned by ``wait``."""
    import pyworkflow
    pyworkflow.Config.setDomain("pwem")
    pyworkflow.Config.getDomain().getProtocols()
    from pyworkflow.gui.project import ProjectWindow
    window = ProjectWindow(str(demo / "scipion" / "user" / "projects" / name))
    wait(window.root, 3.0)
    return window


def viewers_of(window, protocol):
    """Our viewers of a run, as the host makes them."""
    from pyworkflow.viewer import DESKTOP_TKINTER
    widget = window.getViewWidget()
    for kind in widget.domain.findViewers(protocol, DESKTOP_TKINTER):
        if kind.__module__.startswith("refmotion_plugin."):
            yield kind(project=widget.project, protocol=protocol, parent=window, keyPressed=None)


def wait(root, seconds):
    """Let all windows work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        root.update()
        time.sleep(0.02)


def photograph_viewer(window, viewer, protocol, images, options):
    """The form of a viewer and the window behind each of its buttons."""
    from pyworkflow.gui.form import FormWindow
    from pyworkflow.viewer import MessageView
    viewer.setProtocol(protocol)
    viewer.windows = window
    form = FormWindow("Protocol Viewer: " + viewer.getName(), viewer, viewer._viewAll, window, visualizeDict=viewer._getVisualizeDict(), visualizeMode=True)
    viewer.formWindow, viewer.showError, viewer._tkRoot = form, print, form.root
    form.root.deiconify()
    wait(window.root, 1.0)
    photograph(form.root, images / (FORMS[type(viewer).__name__] + ".png"), options)
    for button, show in viewer._getVisualizeDict().items():
        name = BUTTONS.get(button) if button == "showAverage" or type(viewer).__name__ != "AverageMoviesViewer" else None
        if name is None or (options.only and name not in options.only):
            continue
        for view in show():
            if isinstance(view, MessageView):
                sys.stdout.write("%s: %s\n" % (name, view.getMessage()))
                continue
            opened = view.show()
            toplevel = getattr(opened, "window", opened)
            size = SMALL.get(name) or options.size
            if size:
                toplevel.geometry(size)
            wait(window.root, 2.0)
            photograph(toplevel, images / (name + ".png"), options)
            toplevel.destroy()
    form.root.destroy()


def photograph(toplevel, path, options):
    """One window as a PNG with few colours."""
    if options.only and path.stem not in options.only:
        return
    toplevel.geometry("+0+0")
    toplevel.lift()
    wait(toplevel, 0.5)
    subprocess.run(["import", "-window", hex(toplevel.winfo_id()), str(path)], check=True)
    for colours in COLOURS:
        subprocess.run(["convert", str(path), "-strip", "-dither", "None", "-colors", str(colours), "-define", "png:compression-level=9", str(path)], check=True)
        if path.stat().st_size < MOST_BYTES:
            break
    sys.stdout.write("%s: %d kB\n" % (path, path.stat().st_size // 1024))


if __name__ == "__main__":
    main()
