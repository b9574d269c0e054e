"""The report of a job: figures as PNG and one HTML page that holds them all."""
import base64
import logging
import math
from datetime import datetime, timezone

import jinja2

import refmotion_plugin
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.layout import atomic_write
from refmotion_plugin.contract.verdict import rounded
from refmotion_plugin.figures.catalogue import job_figures
from refmotion_plugin.figures.export import save_data, save_figure

PAGE_DOTS_PER_INCH = 110

log = logging.getLogger(__name__)

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
{% if figure.fault %}<p class="failed">{{ figure.fault }}</p>{% else %}<img alt="{{ figure.title }}" src="data:image/png;base64,{{ figure.png }}">{% endif %}
{% endfor %}
<h2>Motion prior</h2>
<table>{% for name, value in prior %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
<h2>Parameters</h2>
<table>{% for name, value in parameters %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
<footer>refmotion {{ version }}, {{ date }}</footer>
</body></html>
"""


def write_report(results, extension="png", with_data=False):
    """Write the figures that the results allow to ``figures/`` and ``report.html``; returns the page's path.

    Parameters: ``results`` a JobResults; what does not exist yet is left out. ``extension`` png, pdf or svg: the format in which
    figures are written besides PNG; ``with_data`` writes the numbers behind them as CSV.
    """
    figures = [shown for shown in (_draw(results, entry, extension, with_data) for entry in job_figures(results)) if shown is not None]
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(PAGE)
    hyperparameters, verdict = results.hyperparameters(), results.verdict()
    page = template.render(
        folder=str(results.layout.folder), verdict=verdict.sentences if verdict else [], search=search_finding(results.search()), failed=results.failed(), figures=figures,
        numbers=[(k.replace("_", " "), "%.2f" % v if isinstance(v, float) else v) for k, v in _summary(results).items()
                 if k not in ("hyperparameter_search", "verdict")],
        prior=sorted(vars(hyperparameters).items()) if hyperparameters else [], parameters=list(_flat(results.spec.model_dump())),
        version=getattr(refmotion_plugin, "__version__", ""), date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    with atomic_write(results.layout.report, "w") as file:
        file.write(page)
    return results.layout.report


def _summary(results):
    """Numbers of the job, or what cannot be read of it."""
    try:
        return results.summary()
    except InputError as error:
        return {"fault": str(error)}


def search_finding(found):
    """What a search found (SearchFinding), in sentences for a person; [] without a search."""
    if found is None:
        return []
    numbers = ("%.0f ± %.0f log-likelihood units on %d particles; %d of %d movies gain"
               % (rounded(found.gain), found.gain_error, found.particles, found.movies_with_gain, len(found.movies)))
    if found.worth_it is None:
        said = [found.text[:1].upper() + found.text[1:] + "."]
    elif found.worth_it:
        said = ["Yes. Trajectories from coarse detail and one half-map predict the fine detail in the movies by the other half-map better "
                "than the rigid motion does: %s." % numbers]
    else:
        said = ["No gain. Trajectories from coarse detail and one half-map do not predict the fine detail in the movies by the other half-map "
                "better than the rigid motion does, beyond what chance gives: %s. Local motion may be left out." % numbers]
    others = ["“%s” is less probable by e^%.0f" % (name, found.evidence[name]) + _predicts(margin) * (found.worth_it is not None)
              for name, margin in found.margins.items() if name != found.family and name in found.evidence]
    said.append("The prior is “%s”%s." % (found.family, "; " + "; ".join(others) if others else ""))
    if found.errors:
        said.append("Standard errors of its parameters, as factors: %s." % ", ".join(
            "%s × %.2f" % (name, math.exp(error)) for name, error in found.errors.items()))
    return said


def _predicts(margin):
    return " and predicts %s by %.0f ± %.0f" % ("worse" if margin[0] >= 0 else "better", abs(margin[0]), margin[1])


def _flat(data, prefix=""):
    for key, value in data.items() if isinstance(data, dict) else enumerate(data, 1):
        if isinstance(value, (dict, list)):
            yield from _flat(value, "%s%s." % (prefix, key))
        elif value is not None:
            yield "%s%s" % (prefix, key), value


def _draw(results, entry, extension, with_data):
    """Write one figure's files; what the page shows of it, or None if there is nothing to show."""
    shown = {"title": entry.title, "text": entry.text, "png": None, "fault": None}
    path = results.layout.figures / (entry.name + ".png")
    try:
        figure = entry.draw()
        if figure is None:
            return None
        save_figure(figure, path, PAGE_DOTS_PER_INCH)
        if extension != "png":
            save_figure(figure, path.with_suffix("." + extension))
        if with_data:
            save_data(figure, path)
    except InputError as error:
        return dict(shown, fault=str(error))
    except Exception as error:      # the particles are written: what a figure meets must not make a failure of the job
        log.exception("figure %s cannot be drawn", entry.name)
        return dict(shown, fault="This figure cannot be drawn (%s: %s); the full text is in the log." % (type(error).__name__, str(error).split("\n")[0]))
    return dict(shown, png=base64.b64encode(path.read_bytes()).decode("ascii"))
