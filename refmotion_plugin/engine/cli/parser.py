"""Which commands there are, with their options and help."""
from refmotion_plugin.contract.spec import ComputeSpec

from ..options import Parser, add_average_options, add_conversions, add_dataclass_options, add_job_options
from .commands import average_command, reconstruct_command, report_command, run_command, status_command
from .conversions import convert_hyperparameters_command, convert_weights_command
from .simulation import simulate_command

RUN_EPILOG = """exit codes: 0 finished; 2 the job cannot go on with what was given (one sentence on stderr); 3 finished, but some movies
failed (listed with reasons; their particles are in left_out_particles.star); 130 stopped.
The same command again goes on where an earlier run ended: movies whose inputs and parameters are unchanged are skipped."""

AVERAGE_EPILOG = """exit codes: 0 finished; 2 nothing can be done with what was given (one sentence on stderr); 3 finished, but some movies failed
(listed with reasons); 130 stopped. The same command again averages only what is missing or was made of something else."""


def command_parser(arguments):
    """The parser of a command line; its values name the function that does the command and, as ``goes_on``, whether it keeps what a stopped one finished.

    ``arguments`` say whose options are wanted: those of ``simulate`` take a moment to load.
    """
    parser = Parser(prog="refmotion", description="Reference-based motion correction of cryo-EM movies.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="simulate | run | average | status | report | reconstruct | convert-weights | convert-hyperparameters")
    _add_run(commands)
    _add_average(commands)
    _add_status_and_report(commands)
    _add_reconstruct(commands)
    add_conversions(commands, convert_weights_command, convert_hyperparameters_command)
    _add_simulate(commands, "simulate" in arguments[:1])
    return parser


def _add_run(commands):
    run = commands.add_parser("run", help="motion-correct particles", epilog=RUN_EPILOG,
                              description="Align particles in movies to a reference, fit dose weights, write polished particles.")
    run.add_argument("out", metavar="OUT", help="folder of the job; made if absent")
    run.add_argument("--job", metavar="FILE", help="job.json with the parameters; options given besides replace single ones "
                                                   "(none and no options: OUT/job.json)")
    run.add_argument("--stage", choices=("align", "movies", "weigh", "polish", "all"), default="all",
                     help="run one stage only; movies: align, and polish in the same decode once there are weights; then weigh, polish (default: all)")
    add_job_options(run)
    run.set_defaults(command=run_command, goes_on=True)


def _add_average(commands):
    average = commands.add_parser("average", help="average movies into micrographs with dose weights", epilog=AVERAGE_EPILOG,
                                  description="Sum the frames of movies along their input motion, weighted by dose and frequency.")
    average.add_argument("out", metavar="OUT", help="folder of the micrographs; made if absent")
    average.add_argument("--job", metavar="FILE", help="average.json with the parameters; options given besides replace single ones "
                                                       "(none and no options: OUT/average.json)")
    add_average_options(average)
    average.set_defaults(command=average_command, goes_on=True)


def _add_status_and_report(commands):
    for name, command, text in (("status", status_command, "say how far a job is"), ("report", report_command, "write report.html and figures")):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("out", metavar="OUT", help="folder of the job")
        sub.set_defaults(command=command)
    sub.add_argument("--format", choices=("png", "pdf", "svg"), default="png", help="write the figures in this format too (default: png)")
    sub.add_argument("--data", action="store_true", help="write the numbers behind every figure as CSV")


def _add_reconstruct(commands):
    quick = commands.add_parser("reconstruct", help="half-map FSC of a job's particles before and after",
                                description="Reconstruct the particles of a finished job before and after, in the same poses and half-sets, and compare the "
                                            "FSC of their half-maps within each reference's mask. Before: the images along the input motion, if the job was "
                                            "run with --reconstruct; else those that the input names, if they have the same size.")
    quick.add_argument("out", metavar="OUT", help="folder of a finished job")
    quick.add_argument("--symmetry", default=None, help="point group: C1, C2 ..., D2 ..., T, O, I (the same as I2), I1, I2, I3 or I4, oriented as in "
                                                        "RELION (default: that of the job)")
    quick.add_argument("--device", default=ComputeSpec.model_fields["device"].default, help="cpu or cuda:0; auto: a GPU if there is one (default: auto)")
    quick.set_defaults(command=reconstruct_command)


def _add_simulate(commands, wanted):
    simulate = commands.add_parser("simulate", help="make a data set with known truth",
                                   description="Write movies, their metadata, particles, half-maps, a mask and the truth.")
    simulate.add_argument("out", metavar="OUT", help="folder to write to; made if absent")
    simulate.set_defaults(command=simulate_command)
    if wanted:              # its module takes a moment to load: only for those who ask
        from ..simulate.spec import FORMATS, MOTIONS, SimulationSpec
        add_dataclass_options(simulate, SimulationSpec, {"motion": MOTIONS, "format": FORMATS})
