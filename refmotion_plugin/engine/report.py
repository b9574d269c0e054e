"""The report of a job: figures as PNG and one HTML page that holds them all."""
import base64
import io
import logging
from datetime import datetime, timezone

import jinja2
import mrcfile
import numpy as np

import refmotion_plugin
from refmotion_plugin import plots
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import atomic_write, located
from refmotion_plugin.contract.star import read_table

log = logging.getLogger(__name__)

SHOWN_MOVIES, SHOWN_PARTICLES, STATISTICS_MOVIES = 2, 8, 300

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Motion correction: {{ folder }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top; }
th { font-weight: 600; } img { max-width: 100%; } .failed { color: #a00; } footer { color: #777; margin-top: 3em; font-size: .85em; }
</style></head><body>
<h1>Reference-based motion correction</h1>
<p>{{ folder }}</p>
<table>{% for name, value in numbers %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
{% if failed %}<h2 class="failed">Failed movies</h2>
<table>{% for movie in failed %}<tr><th>{{ movie.micrograph }}</th><td>{{ movie.reason }}</td></tr>{% endfor %}</table>{% endif %}
{% if verdict %}<h2>Verdict</h2>{% for sentence in verdict %}<p>{{ sentence }}</p>{% endfor %}{% endif %}
{% if search %}<h2>Search for hyperparameters</h2>{% for sentence in search %}<p>{{ sentence }}</p>{% endfor %}{% endif %}
{% for figure in figures %}<h2>{{ figure.title }}</h2><p>{{ figure.text }}</p>
<img alt="{{ figure.title }}" src="data:image/png;base64,{{ figure.png }}">{% endfor %}
<h2>Motion prior</h2>
<table>{% for name, value in prior %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
<h2>Parameters</h2>
<table>{% for name, value in parameters %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
<footer>refmotion {{ version }}, {{ date }}</footer>
</body></html>
"""


def write_report(results):
    """Write the figures that the results allow to ``figures/`` and ``report.html``; returns the page's path.

    ``results`` is a JobResults; what does not exist yet is left out.
    """
    figures = []
    for name, title, text, draw in _figures(results):
        png = _png(draw())
        with atomic_write(results.layout.figures / (name + ".png")) as file:
            file.write(png)
        figures.append({"title": title, "text": text, "png": base64.b64encode(png).decode("ascii")})
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(PAGE)
    hyperparameters, verdict = results.hyperparameters(), results.verdict()
    page = template.render(
        folder=str(results.layout.folder), verdict=verdict.sentences if verdict else [], search=search_finding(results.search()), failed=results.failed(), figures=figures,
        numbers=[(k.replace("_", " "), "%.2f" % v if isinstance(v, float) else v) for k, v in results.summary().items()
                 if k not in ("hyperparameter_search", "verdict")],
        prior=sorted(vars(hyperparameters).items()) if hyperparameters else [], parameters=list(_flat(results.spec.model_dump())),
        version=getattr(refmotion_plugin, "__version__", ""), date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    with atomic_write(results.layout.report, "w") as file:
        file.write(page)
    return results.layout.report


def search_finding(found):
    """What a search found (SearchFinding), in sentences for a person; [] without a search."""
    if found is None:
        return []
    numbers = ("%.0f ± %.0f log-likelihood units on %d particles; %d of %d movies gain"
               % (found.gain, found.gain_error, found.particles, found.movies_with_gain, len(found.movies)))
    if found.worth_it:
        said = ["Yes. Trajectories from coarse detail and one half-map predict the fine detail in the movies by the other half-map better "
                "than the rigid motion does: %s." % numbers]
    else:
        said = ["No gain. Trajectories from coarse detail and one half-map do not predict the fine detail in the movies by the other half-map "
                "better than the rigid motion does, beyond what chance gives: %s. Local motion may be left out." % numbers]
    said.append("The prior is “%s”. Against it, %s." % (found.family, "; ".join(
        "“%s” is worse by %.0f ± %.0f" % (name, *margin) if margin[0] >= 0 else "“%s” is better by %.0f ± %.0f, which is not enough for "
        "its greater freedom" % (name, -margin[0], margin[1]) for name, margin in found.margins.items() if name != found.family)))
    return said


def _flat(data, prefix=""):
    for key, value in data.items() if isinstance(data, dict) else enumerate(data, 1):
        if isinstance(value, (dict, list)):
            yield from _flat(value, "%s%s." % (prefix, key))
        elif value is not None:
            yield "%s%s" % (prefix, key), value


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _figures(results):
    """(file name, title, sentence, function that draws it) of every figure there is data for."""
    weights, fcc, aligned, found = results.weights(), results.fcc_total(), results.aligned_keys(), results.search()
    if found is not None:
        yield ("search", "Search for hyperparameters",
               "Left: how much better held-out data are explained than by rigid motion, along rays of growing prior strength, with standard "
               "errors; directions near 0° stiffen the velocity, near 90° the acceleration. Middle: how much still moves. Right: each family of "
               "priors at its best.", lambda: plots.search_figure(found))
    if fcc is not None:
        for group in range(len(fcc.cross)):
            yield ("fcc" + _number(group), "Fourier cylinder correlation" + _group(group, fcc.cross),
                   "How much of the reference is seen in each frame; it fades with damage and, in the first frames, with motion.",
                   lambda group=group: plots.fcc_figure(fcc, group))
    if weights is not None:
        for group in range(len(weights.weight)):
            yield ("weights" + _number(group), "Dose weights" + _group(group, weights.weight),
                   "What each frame contributes at each resolution. Bars are standard errors of the fit.",
                   lambda group=group: plots.weights_figure(weights, group, None if fcc is None else fcc.frequency_per_angstrom[-1]))
    if aligned:
        keys = [aligned[i] for i in np.unique(np.linspace(0, len(aligned) - 1, STATISTICS_MOVIES).round().astype(int))]
        statistics = results.motion_statistics(keys=keys)
        yield ("motion", "Motion", "Of %d movies." % len(keys), lambda: plots.motion_figure(statistics))
        for key in [aligned[i] for i in np.unique(np.linspace(0, len(aligned) - 1, SHOWN_MOVIES).round().astype(int))]:
            track = results.trajectories(key)
            yield "trajectories_" + key, "Trajectories", track.micrograph, lambda track=track: plots.trajectories_figure(track)
    for reference in range(len(results.spec.references)):
        pair = _example_particles(results, reference)
        if pair is not None:
            yield ("particles" + _number(reference), "Particles before and after", "The first of reference %d." % (reference + 1),
                   lambda pair=pair: plots.before_after_figure(*pair))
            yield ("power" + _number(reference), "Power spectra of particles", "Mean over the particles shown above.",
                   lambda pair=pair: plots.power_figure(*pair))


def _number(index):
    return "" if index == 0 else "_%d" % (index + 1)


def _group(index, groups):
    return " of optics group %d" % (index + 1) if len(groups) > 1 else ""


def _example_particles(results, reference):
    """Images of a few particles before and after with their pixel sizes; before is None if the input has no images."""
    stars = [results.layout.particles(reference, len(results.spec.references))]
    if not stars[0].exists():
        return None
    after_table, source = read_table(stars[0], "particles"), results.spec.references[reference].particles
    after_names = after_table.columns["rlnImageName"][:SHOWN_PARTICLES]
    after = _images(after_names, results.layout.folder / "x")
    before_table = read_table(source, "particles")
    rows = _same_rows(before_table, after_table, len(after_names)) if "rlnImageName" in before_table else None
    before = _images([before_table.columns["rlnImageName"][i] for i in rows], source) if rows else None
    if after is None:
        return None
    return (before, after, _pixel(source), _pixel(stars[0]))


def _same_rows(before, after, count):
    """Rows of the input of the first ``count`` rows of the output: the output keeps the order and leaves some out."""
    keys = [c for c in ("rlnMicrographName", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnDefocusU") if c in before]
    rows, wanted = [], list(zip(*[after.columns[c][:count] for c in keys]))
    for i, key in enumerate(zip(*[before.columns[c] for c in keys])):
        if len(rows) < len(wanted) and key == wanted[len(rows)]:
            rows.append(i)
    return rows if len(rows) == len(wanted) else None


def _pixel(star):
    return read_table(star, "optics").number("rlnImagePixelSize")


def _images(names, beside):
    """Images ``number@stack`` as float32 (n, box, box), or None if a stack cannot be read (inputs may have been moved)."""
    images = []
    for name in names:
        number, _, path = name.partition("@")
        try:
            with mrcfile.mmap(str(located(path, beside)), mode="r", permissive=True) as file:
                data = file.data if file.data.ndim == 3 else file.data[None]
                images.append(np.array(data[int(number) - 1], dtype=np.float32))
        except (OSError, ValueError, IndexError, InputError) as error:
            log.info("particle image %s is not shown: %s", name, error)
            return None
    return np.stack(images) if images and len({i.shape for i in images}) == 1 else None
