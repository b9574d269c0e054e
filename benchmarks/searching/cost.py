"""What a search costs: against polishing the same movies ten times, and against RELION's training of three parameters."""
from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from comparison.report import markdown_table
from refmotion_plugin.contract.spec import relion_prior
from refmotion_plugin.engine.stages import align, polish, weigh
from refmotion_plugin.engine.stages.refine import Ledger
from refmotion_plugin.engine.stages.validate import TuningSet, prepare_tuning

from .data import data_set
from .errors import aligned_errors
from .relion_side import RelionSide
from .search import as_numbers, searched

TIMES_POLISHING, TIMES_RELION = 10, 20


def run(out: Path, training_movies: int, limit_s: int, say) -> tuple[str, dict]:
    """Table and numbers, all in CPU seconds of one thread."""
    folder = data_set(out, "bursts")
    movies, of, job, found, seconds = searched(folder, 1000)
    say(f"search on {found.particles} particles: {seconds:.1f} s")
    polishing = polishing_seconds(movies, of, replace(job, hyperparameters=found.hyperparameters))
    say(f"polishing of the same {len(movies)} movies: {polishing:.1f} s")
    rows = [[f"search, balanced, {found.particles} particles, against {TIMES_POLISHING} × polishing the same movies ({polishing:.1f} s each time)", seconds,
             TIMES_POLISHING * polishing, TIMES_POLISHING * polishing / seconds, "yes" if seconds <= TIMES_POLISHING * polishing else "NO"]]
    data = {"search": as_numbers(found), "search_cpu_seconds": seconds, "polishing_cpu_seconds": polishing}
    if limit_s:
        data["training"] = against_training(out, folder, training_movies, limit_s)
        t = data["training"]
        better = t["gain"]["ours"] >= t["gain"]["RELION"] and t["errors"]["ours"][0] <= t["errors"]["RELION"][0]
        ours, theirs = t["whole_cpu_seconds"], t["relion"]["cpu_s"]
        rows.append([f"inputs, calibration and search, balanced, {t['particles']} particles, against the whole of --params3 on the same ("
                     + ("converged" if t["relion"]["converged"] else f"not converged after {t['relion']['evaluations']} evaluations") + ")", ours, theirs,
                     theirs / ours, "yes" if theirs >= TIMES_RELION * ours and better else "NO"])
    table = markdown_table(["what", "search, CPU s", "other, CPU s", "other / search", "demand met"], rows)
    if limit_s:
        rows = [[name, t["gain"][name], *t["errors"][name]] for name in ("RELION", "ours")]
        table += "\n\n" + markdown_table(["on the movies of the training", "log-likelihood of the high band over rigid motion", "error, all frames, Å",
                                          "first five"], rows)
    return table, data


def polishing_seconds(movies, of, job) -> float:
    """CPU seconds of aligning, weighing and polishing movies once."""
    start, aligned = time.process_time(), []
    for movie in movies:
        aligned.append(align.align_movie(movie, of(movie), job))
    weights = weigh.fit_weights([one.fcc for one in aligned], job)
    for movie, one in zip(movies, aligned):
        polish.polish_movie(movie, of(movie), one.trajectories, weights, job)
    return time.process_time() - start


def against_training(out: Path, folder: Path, count: int, limit_s: int) -> dict:
    """Search and RELION's training on the same first movies; errors of both programs' trajectories, and one score for both priors."""
    relion = RelionSide(out, folder)
    training = relion.training(count, limit_s)
    tracks = relion.tracked(training["sigmas"], count)
    start = time.process_time()
    movies, of, job, found, seconds = searched(folder, 10 ** 9, movies=count)
    whole = time.process_time() - start         # RELION's training is a whole command, too
    ours = aligned_errors(folder, movies, of, job, {"ours": found.hyperparameters})["ours"]
    tuning_set = TuningSet(2 ** 33)
    try:
        for movie in movies:
            tuning_set.add(prepare_tuning(movie, of(movie), job))
        ledger = Ledger(tuning_set)
        trials = ledger.evaluate("compared", "both", [relion_prior(*training["sigmas"]), found.hyperparameters])
        gain = {name: ledger.gain(trial.scores)[0] for name, trial in zip(("RELION", "ours"), trials)}
    finally:
        tuning_set.close()
    return {"relion": training, "particles": found.particles, "cpu_seconds": seconds, "whole_cpu_seconds": whole, "gain": gain, "search": as_numbers(found),
            "errors": {"RELION": (tracks["all"], tracks["early"]), "ours": ours}}
