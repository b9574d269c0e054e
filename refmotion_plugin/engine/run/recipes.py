"""The stages a job is made of, as one replaceable record: the job's logic is tested with fast stand-ins."""
from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class Recipes:
    """Functions of ``engine.stages`` with their names there; see their docstrings."""

    prepare: Callable
    preflight: Callable
    calibrate: Callable
    save_amplitudes: Callable
    load_amplitudes: Callable
    tune: Callable
    load_stack: Callable
    room_ahead: Callable
    align_movie: Callable
    fit_weights: Callable
    load_weights: Callable
    reach_verdict: Callable
    polish_movie: Callable
    outside_movie: Callable
    plan_frames: Callable
    recentering_yx_px: Callable
    thumbnail: Callable = None          # may be missing: results do not need it
    polish_along_input: Callable = None
    forget_movies: Callable = None
    free_memory: Callable = None
    output_geometry: Callable = None


def stage_recipes():
    """The engine's own stages. Imported only when a job runs, so that ``refmotion status`` answers at once."""
    from ..stages import align, calibrate, load, patches, polish, preflight, prepared, reconstruct, thumbnail, tune, verdict, weigh
    return Recipes(prepare=prepared.prepare, preflight=preflight.preflight, calibrate=calibrate.calibrate,
                   save_amplitudes=prepared.save_amplitudes, load_amplitudes=prepared.load_amplitudes,
                   tune=tune.tune, load_stack=load.load_stack, room_ahead=load.room_ahead, align_movie=align.align_movie, fit_weights=weigh.fit_weights,
                   load_weights=weigh.load_weights, reach_verdict=verdict.reach_verdict, polish_movie=polish.polish_movie, outside_movie=patches.outside_movie,
                   plan_frames=patches.plan_frames, recentering_yx_px=polish.recentering_yx_px, thumbnail=thumbnail.thumbnail,
                   polish_along_input=reconstruct.polish_along_input, forget_movies=align.forget_movies, free_memory=align.free_memory,
                   output_geometry=polish.output_geometry)
