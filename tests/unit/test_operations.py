"""How many operations of a device the small problems of a movie take: there each costs its launch, however little it computes."""
from dataclasses import replace

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from refmotion_plugin.engine.motion.adapt import adapt_strength
from refmotion_plugin.engine.motion.escape import _way_out
from refmotion_plugin.engine.motion.evidence import Measured, log_evidence
from refmotion_plugin.engine.motion.fit import fit_trajectories
from refmotion_plugin.engine.stages import align
from tests.pretend_gpu import PretendGpu
from tests.unit.test_device_path import frames_used, on_gpu
from tests.unit.test_fit import DOSES, HYPER, course, curvatures, peaks, positions, prior_of, quadratic_maps

VIEWS = {"alias", "as_strided", "detach", "diagonal", "empty", "empty_like", "expand", "lift_fresh", "permute", "select", "slice", "split",
         "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_reshape_alias", "_unsafe_view",
         "_local_scalar_dense"}
ADAPTED = replace(HYPER, movie_spread=1.5, common_sigma=0.1, early_factor=3.0)


class Operations(TorchDispatchMode):
    """Counts operations that are no views."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function._schema.name.split("::")[1] not in VIEWS
        return function(*args, **(kwargs or {}))


def operations(function, *args):
    """How many a call takes, and what it returns."""
    with Operations() as counted:
        found = function(*args)
    return counted.count, found


def noisy_maps():
    return quadratic_maps(peaks(), curvatures("uneven"))


def test_an_iteration_of_the_fit_takes_few_operations():
    count, fit = operations(fit_trajectories, noisy_maps(), prior_of(HYPER))
    assert int(fit.iterations[0]) > 2 and count < 100 * (int(fit.iterations[0]) + 1)


def test_operations_do_not_become_more_with_the_sets():
    one, three = (operations(fit_trajectories, noisy_maps(), prior_of(*[replace(HYPER, velocity_sigma=v) for v in strengths]))
                  for strengths in ((0.1,), (0.1, 0.1, 0.1)))
    assert three[0] < 1.05 * one[0]
    two, four = (operations(prior_of, *[replace(HYPER, velocity_sigma=v) for v in strengths])[0]
                 for strengths in ((0.1, 0.2), (0.1, 0.2, 0.3, 0.4)))
    assert two == four


def test_adapting_the_strength_takes_few_operations():
    maps, where = noisy_maps(), (torch.from_numpy(positions()), torch.from_numpy(DOSES), course())
    fit = fit_trajectories(maps, prior_of(ADAPTED, course=course()))
    count, own = operations(adapt_strength, ADAPTED, fit, maps, *where)
    assert count < 1250 and own != ADAPTED


def test_parts_of_the_evidence_whose_fields_stay_are_not_worked_out_again():
    measured = Measured(torch.from_numpy(peaks()), torch.from_numpy(curvatures("even")[0]), torch.from_numpy(positions()),
                        torch.from_numpy(DOSES), course())
    first, shifted, moved = (operations(log_evidence, [replace(ADAPTED, **change)], measured)[0]
                             for change in (dict(), dict(common_sigma=0.2), dict(common_sigma=0.2, velocity_sigma=0.2)))
    assert shifted < 0.7 * first and moved < 0.8 * first


def test_finding_out_that_no_particle_is_far_takes_few_operations():
    maps = noisy_maps()
    fit = fit_trajectories(maps, prior_of(HYPER))
    count, change = operations(_way_out, replace(maps, step_angstrom=1e6), fit)
    assert count < 40 and change is None


def test_more_frames_hardly_take_more_operations_of_a_gpu(tiny, calibrated):
    """Once a frame's patches are cut and kept, its correlations take no operations of its own: those of a block of frames are shared."""
    movie, particles, counts = tiny.movies[0], tiny.of(tiny.movies[0]), []
    for last in (8, 16):
        with PretendGpu():
            job = frames_used(on_gpu(tiny).with_amplitudes(calibrated.amplitudes), last)
            view = align.view_movie(movie, particles, job)
            first = [operations(lambda f=f: view.spectra(f))[0] for f in range(last)]
            whole, (fit, model) = operations(align.estimate_deviation, view, job.amplitudes, job, 1)
            judged, _ = operations(align.judge, view, fit.deviation[0], model.noise, torch.zeros(len(particles), dtype=torch.int64), 1)
            counts.append((whole, judged, first[-1], int(fit.iterations[0])))
    (fewer, judged_few, _, steps), (more, judged_more, cut, other_steps) = counts
    assert cut > 5 and judged_more - judged_few < 8 * 8 and more - fewer - 100 * (other_steps - steps) < 8 * 8
