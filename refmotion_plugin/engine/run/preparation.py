"""Before the first movie: weights that were given, a check of the inputs, the references' amplitude."""
from refmotion_plugin.contract import store
from refmotion_plugin.contract.layout import is_done, mark_done, particles_hash
from refmotion_plugin.contract.weighting import check_groups

from .given_weights import read_for_movies
from .inputs import values_of
from .state import mark_of


def use_given_weights(job):
    """Take the dose weights that the job names, if it does; their doses are those of the first movie that they fit where the file holds none.

    Raises InputError if they fit no movie, or are of other optics groups.
    """
    spec = job.spec.dose
    if spec.weights_file is None:
        return

    def read(doses, pixel):
        return job.recipes.load_weights(spec.weights_file, doses, spec.normalisation, spec.weights_pixel_angstrom or pixel)

    doses_of = lambda movie: job.recipes.plan_frames(movie, job.spec.inputs).dose_e_per_A2
    found, _ = read_for_movies(job.inputs.movies, doses_of, read)
    job.weights = read(None, None) if found is None else found
    check_groups(len(job.weights.weight), len(job.prepared.optics_groups), "particles", "dose weights %s" % spec.weights_file)
    store.save_weights(job.layout.weights, job.weights)


def preflight_and_calibrate(job, may_run):
    """Check the inputs on a few movies and find the references' amplitude, each once per set of inputs; once for all if they grow."""
    made_of = {} if job.spec.inputs.growing else {"particles": [particles_hash(s.table) for s in job.inputs.sets],
                                                  "movies": [values_of(m) for m in job.inputs.movies]}
    mark = mark_of(job, "calibrate", hyperparameters=vars(job.prepared.hyperparameters), **made_of)
    job.inputs_mark = mark
    if job.spec.inputs.preflight and may_run and not is_done(job.layout.preflight_done, mark):
        report = job.recipes.preflight(job.inputs.movies, job.inputs.particles_of, job.prepared)
        mark_done(job.layout.preflight_done, mark, text=report.text, warnings=list(report.warnings))
    if job.spec.motion_prior.rigid:
        return
    if may_run and not is_done(job.layout.calibrate_done, mark, made=job.layout.amplitudes):
        job.prepared = job.recipes.calibrate(job.inputs.movies, job.inputs.particles_of, job.prepared)
        job.recipes.save_amplitudes(job.layout.amplitudes, job.prepared.amplitudes)
        mark_done(job.layout.calibrate_done, mark, job.layout.amplitudes, warnings=list(job.prepared.warnings))
    elif job.layout.amplitudes.exists():
        job.prepared = job.prepared.with_amplitudes(job.recipes.load_amplitudes(job.layout.amplitudes))
