"""Windows for matplotlib figures that were made without pyplot."""
import os
import webbrowser

from pyworkflow.viewer import View

from refmotion_plugin.figures.export import FORMATS, save_data, save_figure

SMALLEST = (520, 400)           # px
SPACE_FOR_TOOLS = 60            # px


def figure_frame(master, figure):
    """A frame with a figure, matplotlib's tool bar (zoom, save) and a button that saves the data behind it."""
    import tkinter
    from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg, NavigationToolbar2Tk
    frame = tkinter.Frame(master)
    tools = tkinter.Frame(frame)
    tools.pack(side="bottom", fill="x")                 # before the canvas: it keeps its place in a small window
    canvas = FigureCanvasTkAgg(figure, master=frame)
    NavigationToolbar2Tk(canvas, tools, pack_toolbar=False).pack(side="left", fill="x", expand=True)
    tkinter.Button(tools, text="Save figure", command=lambda: ask_and_save(frame, figure)).pack(side="left", padx=2)
    if figure.tables:
        tkinter.Button(tools, text="Save data", command=lambda: ask_and_save_data(frame, figure)).pack(side="left", padx=2)
    canvas.get_tk_widget().pack(fill="both", expand=True)
    canvas.draw()
    return frame


def ask_and_save(master, figure):
    """Ask where to, and write the picture in the format of the name's ending."""
    from tkinter import filedialog
    path = filedialog.asksaveasfilename(parent=master, title="Save figure", defaultextension=".png",
                                        filetypes=[(name.upper(), "*." + name) for name in FORMATS])
    if path:
        _told(master, lambda: save_figure(figure, path))


def ask_and_save_data(master, figure):
    """Ask where to, and write the tables behind the figure as CSV."""
    from tkinter import filedialog
    path = filedialog.asksaveasfilename(parent=master, title="Save data", defaultextension=".csv", filetypes=[("CSV", "*.csv")])
    if path:
        _told(master, lambda: save_data(figure, path))


def _told(master, save):
    """Save, and say it if that fails."""
    from tkinter import messagebox
    try:
        save()
    except (OSError, ValueError) as error:
        messagebox.showerror("Not saved", str(error), parent=master)


class FigureView(View):
    """Shows a figure in a window of its own."""

    def __init__(self, figure, title, tk_root=None):
        View.__init__(self)
        self.figure, self.title, self._root = figure, title, tk_root

    def savefig(self, path, **options):
        """Write the figure to a file."""
        self.figure.savefig(path, **options)

    def savedata(self, path):
        """Write the data behind the figure as CSV; returns the paths."""
        return save_data(self.figure, path)

    def show(self):
        """Open the window; it lives beside the others of the host."""
        import tkinter
        window = tkinter.Toplevel(self._root)
        window.title(self.title)
        window.minsize(*SMALLEST)
        width, height = self.figure.get_size_inches() * self.figure.dpi
        window.geometry("%dx%d" % (min(width, 0.95 * window.winfo_screenwidth()), min(height + SPACE_FOR_TOOLS, 0.9 * window.winfo_screenheight())))
        figure_frame(window, self.figure).pack(fill="both", expand=True)
        return window


class PageView(View):
    """Opens a local HTML page in the user's browser."""

    def __init__(self, path):
        View.__init__(self)
        self.path = path

    def show(self):
        """Open the page."""
        webbrowser.open(self.path.resolve().as_uri())


class SavedView(View):
    """Says what was written to which folder, and opens it in the browser."""

    def __init__(self, folder, files):
        View.__init__(self)
        self.folder, self.files = folder, files

    def show(self):
        """Open the folder."""
        webbrowser.open("file://" + os.path.abspath(self.folder))
