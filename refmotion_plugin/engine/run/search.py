"""The first stage of a job: hyperparameters searched on a subset, unless they were given or were found before."""
import json
import logging
import math
from dataclasses import replace

from refmotion_plugin.contract import layout as files
from refmotion_plugin.contract import store
from refmotion_plugin.contract.layout import is_done, mark_done, write_json

log = logging.getLogger(__name__)


def find_hyperparameters(job, mark, may_run):
    """Search, or read what a search with the same inputs found; returns the prepared job with them.

    Writes hyperparameters.json, search.jsonl (a record per trial) and search.json (the finding).
    """
    layout = job.layout
    if may_run and not is_done(layout.search_done, mark, layout.search, made=layout.hyperparameters):
        found = job.recipes.tune(job.inputs.movies, job.inputs.particles_of, job.prepared, _Teller(job.status))
        log.log(logging.WARNING if found.worth_it is None else logging.INFO, found.text)
        with files.atomic_write(layout.search_journal, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in found.journal)
        write_json(layout.search, finding(found))
        store.save_hyperparameters(layout.hyperparameters, found.hyperparameters)
        mark_done(layout.search_done, mark, layout.hyperparameters)
    if not layout.search.exists():
        return job.prepared
    return replace(job.prepared, hyperparameters=store.load_hyperparameters(layout.hyperparameters))


def finding(found):
    """What a search found, as JSON values; errors that are not known (one movie) are null."""
    number = lambda value: value if math.isfinite(value) else None
    return {"family": found.family, "text": found.text, "worth_it": found.worth_it, "gain_log_likelihood": found.gain,
            "gain_error": found.gain_error, "gain_error_over_movies": number(found.gain_error_over_movies),
            "movies_with_gain": found.movies_with_gain, "particles": found.particles, "movies": found.movies,
            "activity_at_last_angstrom": found.activity_at_last_angstrom,
            "margins": {name: [margin, error] for name, (margin, error) in found.margins.items()}, "evidence": found.evidence,
            "errors": found.errors}


UNITS = {"correlation maps": "particle", "rays": "step", "refinement": "family"}


class _Teller:
    """Progress of a search as stages of the job's status."""

    def __init__(self, status):
        self.status, self.sentence = status, None

    def __call__(self, done, total, sentence):
        if sentence != self.sentence:
            self.status.begin("search: " + sentence, total, UNITS[sentence])
            self.sentence = sentence
        if done:
            self.status.reach(done)
