"""Layout of the form of the motion correction: sections and groups; the fields are in ``form_fields`` and ``references``."""
from pyworkflow.protocol import params

from . import form_fields
from .references import define_references
from .streaming import add_streaming_fields

_SEARCHED, _WITH_PARTICLES = "searchThoroughness > 0", "stopAfter == 2"


def define(form):
    """Add every section."""
    form.addSection(label="Input")
    define_devices(form)
    form.addParam("inputMovies", params.PointerParam, pointerClass="SetOfMovies", important=True, label="Input movies",
                  help="Movies with their alignment (global shifts, local motion too where the program stores it). The "
                       "original movies are needed, not aligned and interpolated stacks.")
    define_references(form)
    _define_earlier_results(form)
    _define_motion(form)
    _define_movies(form)
    _define_output(form)
    add_streaming_fields(form, first_particles=200)
    form.addParallelSection(threads=4, mpi=0)


def define_devices(form):
    """GPU switch and list, which the host draws in the head of the form."""
    form.addHidden(params.USE_GPU, params.BooleanParam, default=True, label="Use GPU for execution",
                   help="No: the same calculation on CPU threads.")
    form.addHidden(params.GPU_LIST, params.StringParam, default="0", label="Choose GPU IDs",
                   help="Numbers among the GPUs that this run sees, for example 0 or 0 1 or 0-3. Where CUDA_VISIBLE_DEVICES is set, by a "
                        "queue for instance, 0 is the first GPU that it names.")


def _define_earlier_results(form):
    group = form.addGroup("Results of earlier runs (optional)")
    group.addParam("inputHyperparameters", params.PointerParam, pointerClass="MotionHyperparameters", allowsNull=True,
                   label="Input hyperparameters",
                   help="Strengths of the motion prior from an earlier run or import. They are used as they are: nothing is searched.")
    group.addParam("inputDoseWeights", params.PointerParam, pointerClass="EmpiricalDoseWeights", allowsNull=True,
                   label="Input dose weights",
                   help="Dose weights from an earlier run or import; they are not measured again, so each movie is read once.")


def _define_motion(form):
    form.addSection(label="Motion and dose")
    first, others = form_fields.SEARCH[0], form_fields.SEARCH[1:]
    group = form.addGroup("Hyperparameters: search")
    form_fields.add_field(group, first)
    for field in others:
        form_fields.add_field(group, field, _SEARCHED)
    form_fields.add_group(form, "Hyperparameters: given (all three, or none)", form_fields.STRENGTHS)
    form_fields.add_group(form, "Alignment", form_fields.ALIGNMENT)
    form_fields.add_group(form, "Dose weights", form_fields.DOSE)


def _define_movies(form):
    form.addSection(label="Movies")
    define_frames(form)
    form_fields.add_group(form, "Gain reference", form_fields.GAIN)
    group = form_fields.add_group(form, "Reading and checks", form_fields.READING)
    group.addParam("coordinatePixel", params.FloatParam, default=-1.0, label="Pixel size of the coordinates (Å)",
                   expertLevel=params.LEVEL_ADVANCED,
                   help="-1: that of the particle images, as Scipion's extraction protocols store coordinates. Particles "
                        "imported from RELION STAR files keep pixels of the micrographs: give those pixels' size.\n\n"
                        "_When_: if the form says that coordinates do not fit the movies; the wizard shows which size does.")


def define_frames(form):
    """First and last frame in one line."""
    line = form.addLine("Frames", help="Counted from 1; -1: the last frame of each movie.\n\n_When_: fewer frames are faster and cost "
                                       "low-resolution signal; bad first frames get little dose weight by themselves.\n\n"
                                       "_Elsewhere_: RELION: First movie frame, Last movie frame.")
    for field in form_fields.FRAMES:
        form_fields.add_field(line, field)


def _define_output(form):
    form.addSection(label="Output")
    form_fields.add_field(form, form_fields.OUTPUT[0])
    form_fields.add_group(form, "Images", form_fields.OUTPUT[1:])
    group = form.addGroup("Comparison", condition=_WITH_PARTICLES)
    form_fields.add_field(group, form_fields.COMPARISON[0], _WITH_PARTICLES)
    form_fields.add_field(group, form_fields.COMPARISON[1], "reconstruct and " + _WITH_PARTICLES)
    define_compute(form, form_fields.COMPUTE)


def define_compute(form, fields=()):
    """The line with the wizard for GPUs and threads, and fields that say where it runs."""
    group = form.addGroup("Compute")
    group.addParam("deviceWizard", params.LabelParam, label="Set GPUs and threads for this machine",
                   help="The wizard button lists the GPUs and cores of this machine and fills in the fields above. In a queue the run has "
                        "what its job gets instead.")
    for field in fields:
        form_fields.add_field(group, field)
