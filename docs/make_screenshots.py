"""Pictures of the Scipion window for the documentation: opens a real project and form, and photographs them.

    make demo
    xvfb-run -s '-screen 0 1600x1300x24' .venv/bin/python docs/make_screenshots.py demo_output/scipion demo OUT

Arguments: the folder in which Scipion lives, the project's name, the folder for the pictures. The forms
are those of new runs on the same inputs. While the run goes on (start make demo in another terminal) only the window with its live summary is photographed. Needs a display (here Xvfb) and Python's tkinter.

    xvfb-run -s '-screen 0 1600x1300x24' python docs/make_screenshots.py --template reference_motion_correction OUT

photographs what a workflow template asks for, in an environment that has scipion-app too, which draws that window.
"""
import os
import sys
import tempfile
from pathlib import Path

from refmotion_plugin.headless import prepare_environment

COLOURS, SETTLE_MS = 64, 1500


class Camera:
    """Takes pictures of tk windows; few colours keep the files small."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)

    def shoot(self, window, name, height=None):
        """Save what the screen shows of a window, or of its upper ``height`` px."""
        from PIL import ImageGrab
        window.update()
        x, y = window.winfo_rootx(), window.winfo_rooty()
        box = (x, y, x + window.winfo_width(), y + (height or window.winfo_height()))
        path = self.folder / (name + ".png")
        ImageGrab.grab(box, xdisplay="").convert("RGB").quantize(COLOURS).save(path, optimize=True)
        sys.stdout.write("%s\n" % path)


def scenes(window, camera):
    """One scene after the other; each yield lets the window draw itself."""
    view, root = window.getViewWidget(), window.root
    root.geometry("1340x960+0+0")
    yield
    correction = next(run for run in window.project.getRuns() if run.getClassName() == "ProtReferenceMotionCorrection" and not run.isSaved())
    _open_tree(view)
    _select(view, correction)
    yield
    camera.shoot(root, "scipion_running" if correction.isActive() else "scipion_project")
    if not correction.isActive():
        yield from _form(view, _new_correction(window.project, correction), "form", camera)
        yield from _form(view, _new_average(window.project, correction), "average", camera)


def _select(view, run):
    """As a click on the run's box does."""
    node = view.runsGraph.getNode(run.strId())
    view._deselectItems(node.item)
    view._selectItemProtocol(run)


def _open_tree(view):
    """Unfold what holds our protocols."""
    def walk(item):
        text = tree.item(item, "text").strip()
        if text in ("Protocols SPA", "Imports", "more", "Movies", "3D", "Refine", "Exports"):
            tree.item(item, open=True)
        for child in tree.get_children(item):
            walk(child)
    tree = view.protTree
    for top in tree.get_children():
        walk(top)
    divider = next(w for w in _below(view) if w.winfo_class() in ("TPanedwindow", "Panedwindow"))
    getattr(divider, "sashpos", lambda i, x: divider.sash_place(i, x, 1))(0, 490)


def _new_correction(project, correction):
    """A correction as it begins: the same inputs, all else as it comes."""
    new = project.newProtocol(type(correction))
    new.setObjLabel("reference-based motion correction")
    for name in ("inputMovies", "inputParticles", "inputVolume", "inputMask"):
        getattr(new, name).copy(getattr(correction, name))
    return new


def _new_average(project, correction):
    """An averaging protocol on the same movies and the weights found."""
    from refmotion_plugin.protocols import ProtAverageMovies
    average = project.newProtocol(ProtAverageMovies)
    average.setObjLabel("average movies with dose weights")
    average.inputMovies.copy(correction.inputMovies)
    average.inputDoseWeights.set(correction)
    average.inputDoseWeights.setExtended("outputDoseWeights")
    return average


def _form(view, run, name, camera):
    """Every tab of a form at both levels, and a wizard's list."""
    from pyworkflow.gui.form import FormWindow
    for level, suffix in ((0, ""), (1, "_advanced")):
        run.expertLevel.set(level)
        form = FormWindow("Protocol Run: " + run.getClassName(), run, lambda *a, **k: None, view.window,
                          updateProtocolCallback=lambda *a: None)
        form.adjustSize()
        form.root.deiconify()
        form.root.geometry("+0+0")
        form.root.lift()
        tabs = next(w for w in _below(form.root) if w.winfo_class() == "TNotebook")
        for tab in tabs.tabs():
            tabs.select(tab)
            form.root.lift()
            yield
            camera.shoot(form.root, "scipion_%s_%s%s" % (name, tabs.tab(tab, "text").split()[0].lower(), suffix))
        if name == "form" and level == 1:
            yield from _wizard(form, camera)
        form.root.destroy()
        yield


def _wizard(form, camera):
    """The list of the box wizard; it waits for an answer, which the scene gives."""
    from refmotion_plugin.wizards import CropBoxWizard

    def photograph():
        dialog = [w for w in form.root.winfo_children() if w.winfo_class() == "Toplevel"][-1]
        dialog.geometry("+100+200")
        dialog.lift()
        dialog.update()
        dialog.after(SETTLE_MS, lambda: (camera.shoot(dialog, "scipion_wizard"), dialog.destroy()))
    form.root.after(SETTLE_MS, photograph)
    CropBoxWizard().show(form)
    yield


def _below(widget):
    """All widgets in a window."""
    for child in widget.winfo_children():
        yield child
        yield from _below(child)


def photograph_template(name, camera):
    """The questions of a template, with a neutral folder where the user's own would stand."""
    prepare_environment(tempfile.mkdtemp())
    os.environ["SCIPION_USER_DATA"] = "/data"
    import pyworkflow
    pyworkflow.Config.setDomain("pwem")
    from pyworkflow.template import TemplateList
    from scipion.scripts.kickoff import KickoffWindow
    templates = TemplateList()
    templates.addPluginTemplates("refmotion_plugin-" + name)
    template = templates.templates[0]
    template.replaceEnvVariables()
    template.parseContent()
    template.projectName = "session42"
    window = KickoffWindow(template, [], True, True, True, True, True)
    window.root.geometry("+0+0")
    window.root.after(2 * SETTLE_MS, lambda: (camera.shoot(window.root, "scipion_template"), window.root.quit()))
    window.show()


def main():
    """Open the project and run the scenes in the window's own loop."""
    home, name, output = sys.argv[1:4]
    camera = Camera(output)
    if home == "--template":
        photograph_template(name, camera)
        return
    prepare_environment(home)
    import pyworkflow
    pyworkflow.Config.setDomain("pwem")
    from pyworkflow.gui.project import ProjectWindow
    from pyworkflow.project import Manager
    window = ProjectWindow(Manager().getProjectPath(name))
    play = scenes(window, camera)
    failure = []

    def step():
        try:
            next(play)
        except StopIteration:
            window.root.quit()
        except Exception as error:      # a loop of tk would only print it and stay open
            failure.append(error)
            window.root.quit()
        else:
            window.root.after(SETTLE_MS, step)
    window.root.after(2 * SETTLE_MS, step)
    window.show()
    window.root.destroy()
    if failure:
        raise failure[0]


if __name__ == "__main__":
    main()
