"""The parameters of averaging movies: validated, unknown key = error, to and from JSON. What a job shares with averaging is taken from
its own spec, so that defaults and explanations live in one place."""
from pydantic import Field, create_model, model_validator

from .spec import SCHEMA, ComputeSpec, DoseSpec, InputSpec, JobSpec, _Part, frames_in_order


def _part_of(model, name, doc, fields, **validators):
    """A part with some of the fields of another."""
    chosen = {field: (model.model_fields[field].annotation, model.model_fields[field]) for field in fields}
    return create_model(name, __base__=_Part, __module__=__name__, __doc__=doc, __validators__=validators, **chosen)


AverageInputSpec = _part_of(InputSpec, "AverageInputSpec", "Movies and how to read them.", (
    "movies", "first_frame", "last_frame", "gain", "gain_rotation", "gain_flip", "movie_flip_y", "defects", "hot_pixel_sigma",
    "eer_grouping", "growing"), _frames=model_validator(mode="after")(frames_in_order))
AverageDoseSpec = _part_of(DoseSpec, "AverageDoseSpec", "Dose weights; without a file the standard exposure curve.", (
    "weights_file", "weights_pixel_angstrom"))
AverageComputeSpec = _part_of(ComputeSpec, "AverageComputeSpec", "Where it runs. Nothing here changes results but for rounding.", (
    "device", "threads", "workers", "scheduler", "cluster", "read_timeout_seconds", "worker_timeout_seconds", "memory_gib"))


class AverageOutputSpec(_Part):
    """The micrographs that leave."""

    binning: float = Field(1.0, ge=1, le=16, description="movie pixels per pixel of the micrograph, by Fourier cropping; need not be whole")
    unweighted: bool = Field(True, description="write the plain sum of the frames besides the dose-weighted one")
    even_odd: str = Field("none", pattern="^(none|unweighted|weighted)$", description="write the sums of the even and of the odd frames too, for denoising: they add up to the plain sum (unweighted) or to the dose-weighted one (weighted)")
    float16: bool = Field(False, description="write MRC mode 12 (16-bit floating point; RELION reads it from version 4 on)")
    local_motion: bool = Field(True, description="apply the local motion model where the movie has one, besides its rigid motion")


class AverageSpec(_Part):
    """Everything that averaging was asked to do."""

    inputs: AverageInputSpec
    dose: AverageDoseSpec = AverageDoseSpec()
    output: AverageOutputSpec = AverageOutputSpec()
    compute: AverageComputeSpec = AverageComputeSpec()
    schema_version: int = SCHEMA

    to_json = JobSpec.to_json
    build = classmethod(JobSpec.build.__func__)
    read = classmethod(JobSpec.read.__func__)
