"""A window with all movies of a run on the left and the trajectories of the chosen one on the right."""
from pyworkflow.viewer import View

from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.figures.catalogue import draw_trajectories_of
from refmotion_plugin.figures.movies import sentence_figure
from refmotion_plugin.figures.trajectories import KINDS, LARGEST_EXAGGERATION

from . import movie_table
from .figure_view import figure_frame

SIZE, SHARE_OF_LIST = (1240, 760), 0.45
REDRAW_AFTER_MS = 250           # after the last move of the slider


class MovieBrowser(View):
    """Movies with their states; selecting a line draws its trajectories. ``results`` is a JobResults, read again on *Refresh*."""

    def __init__(self, results, title, tk_root=None):
        View.__init__(self)
        self.results, self.title, self._root = results, title, tk_root
        self.table = movie_table.table_of(results.movie_rows())

    def figure_of(self, key, exaggeration=None, kinds=tuple(KINDS), uncertainty=True):
        """Trajectories of a movie, or the reason why there are none."""
        line = next(line for line in self.table if line["key"] == key)
        if line["path_length_angstrom"] is None:
            return sentence_figure(line["micrograph"], line["reason"] or "this movie is not aligned yet")
        try:
            return draw_trajectories_of(self.results, key, exaggeration=exaggeration, kinds=kinds, uncertainty=uncertainty)
        except InputError as error:
            return sentence_figure(line["micrograph"], str(error))

    def refresh(self):
        """Read the movies' states again."""
        self.table = movie_table.table_of(self.results.movie_rows())

    def show(self):
        """Open the window."""
        return _Window(self, self._root)


class _Window:
    """The window's parts and what happens when they are touched."""

    def __init__(self, browser, root):
        import tkinter
        from tkinter import ttk
        self.browser, self.shown, self._waiting = browser, None, None
        self.order, self.descending = "number", False
        self.window = tkinter.Toplevel(root)
        self.window.title(browser.title)
        self.window.geometry("%dx%d" % SIZE)
        panes = ttk.PanedWindow(self.window, orient="horizontal")
        panes.pack(fill="both", expand=True)
        self.left, self.right = ttk.Frame(panes), ttk.Frame(panes)
        panes.add(self.left, weight=2)
        panes.add(self.right, weight=3)
        self._make_list(tkinter, ttk)
        self._make_controls(tkinter, ttk)
        self.window.update_idletasks()
        panes.sashpos(0, int(SHARE_OF_LIST * SIZE[0]))
        self.fill()

    def _make_list(self, tkinter, ttk):
        top = ttk.Frame(self.left)
        top.pack(fill="x", padx=4, pady=4)
        ttk.Label(top, text="Show only").pack(side="left")
        self.filter = tkinter.StringVar()
        self.filter.trace_add("write", lambda *_: self.fill())
        ttk.Entry(top, textvariable=self.filter).pack(side="left", fill="x", expand=True, padx=4)
        ttk.Button(top, text="Refresh", command=self.refresh).pack(side="left")
        body = ttk.Frame(self.left)
        body.pack(fill="both", expand=True)
        self.tree = ttk.Treeview(body, columns=[c.name for c in movie_table.COLUMNS], show="headings", selectmode="browse")
        for column in movie_table.COLUMNS:
            self.tree.heading(column.name, text=column.title, command=lambda name=column.name: self.sort(name))
            self.tree.column(column.name, anchor=column.align, stretch=column.name == "reason")
        self.tree.tag_configure("failed", foreground="#A33C00")
        self.tree.tag_configure("to do", foreground="#888888")
        down, across = ttk.Scrollbar(body, command=self.tree.yview), ttk.Scrollbar(body, orient="horizontal", command=self.tree.xview)
        self.tree.configure(yscrollcommand=down.set, xscrollcommand=across.set)
        across.pack(side="bottom", fill="x")
        down.pack(side="right", fill="y")
        self.tree.pack(fill="both", expand=True)
        self.tree.bind("<<TreeviewSelect>>", lambda event: self.draw())

    def _make_controls(self, tkinter, ttk):
        self.automatic, self.uncertainty = tkinter.BooleanVar(value=True), tkinter.BooleanVar(value=True)
        self.kind, self.exaggeration = tkinter.StringVar(value="motion"), tkinter.DoubleVar(value=10.0)
        first, second = ttk.Frame(self.right), ttk.Frame(self.right)
        first.pack(fill="x", padx=4, pady=(4, 0))
        second.pack(fill="x", padx=4)
        ttk.Label(first, text="Exaggerate").pack(side="left")
        ttk.Checkbutton(first, text="as fits", variable=self.automatic, command=self.draw).pack(side="left", padx=4)
        ttk.Scale(first, from_=1.0, to=LARGEST_EXAGGERATION, variable=self.exaggeration, command=self._slid).pack(side="left", fill="x", expand=True)
        self.factor = ttk.Label(first, width=7)
        self.factor.pack(side="left")
        for value, text in (("motion", "motion"), ("local", "without the mean"), ("both", "both")):
            ttk.Radiobutton(second, text=text, value=value, variable=self.kind, command=self.draw).pack(side="left", padx=4)
        ttk.Checkbutton(second, text="uncertainty", variable=self.uncertainty, command=self.draw).pack(side="left", padx=12)
        self.frame = ttk.Frame(self.right)
        self.frame.pack(fill="both", expand=True)

    def _slid(self, value):
        self.automatic.set(False)
        self._show_factor(float(value))
        if self._waiting is not None:
            self.window.after_cancel(self._waiting)
        self._waiting = self.window.after(REDRAW_AFTER_MS, self.draw)

    def _show_factor(self, value):
        self.exaggeration.set(value)
        self.factor.configure(text="× %.3g" % value)

    def sort(self, name):
        """Sort by a column; a second time the other way round."""
        self.descending = not self.descending if name == self.order else False
        self.order = name
        self.fill()

    def refresh(self):
        """Read the job again: it may be running."""
        self.browser.refresh()
        self.fill()

    def fill(self):
        """Write the lines; the chosen movie stays chosen, at first the first one is."""
        lines = movie_table.sorted_by(movie_table.matching(self.browser.table, self.filter.get()), self.order, self.descending)
        chosen = self.tree.selection()
        self.tree.delete(*self.tree.get_children())
        for line in lines:
            self.tree.insert("", "end", iid=line["key"], values=movie_table.cells(line), tags=(line["state"],))
        self._fit_columns()
        keys = [line["key"] for line in lines]
        if keys:
            self.tree.selection_set(chosen[0] if chosen and chosen[0] in keys else keys[0])

    def _fit_columns(self):
        """As wide as their contents: what does not fit into the window is scrolled to, not cut off."""
        from tkinter import font, ttk
        style = ttk.Style(self.window)
        fonts = [font.Font(root=self.window, font=style.lookup(part, "font") or "TkDefaultFont") for part in ("Treeview.Heading", "Treeview")]
        for column, width in zip(movie_table.COLUMNS, movie_table.widths(self.browser.table, *[f.measure for f in fonts])):
            self.tree.column(column.name, width=width, minwidth=width)

    def draw(self):
        """Draw the chosen movie as the controls say."""
        self._waiting = None
        chosen = self.tree.selection()
        if not chosen:
            return
        kinds = tuple(KINDS) if self.kind.get() == "both" else (self.kind.get(),)
        figure = self.browser.figure_of(chosen[0], None if self.automatic.get() else float(self.exaggeration.get()), kinds, self.uncertainty.get())
        for child in self.frame.winfo_children():
            child.destroy()
        figure_frame(self.frame, figure).pack(fill="both", expand=True)
        self.shown = figure
        if self.automatic.get() and getattr(figure, "exaggerations", None):
            self._show_factor(figure.exaggerations[0])
