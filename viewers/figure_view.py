"""A window for a matplotlib figure that was made without pyplot."""
import webbrowser

from pyworkflow.viewer import View


class FigureView(View):
    """Shows a ``matplotlib.figure.Figure`` with a tool bar (zoom, save)."""

    def __init__(self, figure, title, tk_root=None):
        View.__init__(self)
        self.figure, self.title, self._root = figure, title, tk_root

    def savefig(self, path, **options):
        """Write the figure to a file."""
        self.figure.savefig(path, **options)

    def show(self):
        """Open the window; it lives beside the others of the host."""
        import tkinter
        from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg, NavigationToolbar2Tk
        window = tkinter.Toplevel(self._root)
        window.title(self.title)
        canvas = FigureCanvasTkAgg(self.figure, master=window)
        NavigationToolbar2Tk(canvas, window).update()
        canvas.get_tk_widget().pack(fill="both", expand=True)
        canvas.draw()


class PageView(View):
    """Opens a local HTML page in the user's browser."""

    def __init__(self, path):
        View.__init__(self)
        self.path = path

    def show(self):
        """Open the page."""
        webbrowser.open(self.path.resolve().as_uri())
