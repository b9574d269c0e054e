"""The parameters of a job: validated, unknown key = error, to and from JSON. Every default lives here; forms and CLI read it."""
import json
import re
from typing import List, Optional, Tuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import InputError
from .reading import read_text
from .records import Hyperparameters

SCHEMA = 1
MOST_FAULTS = 5     # named in one message
RELION_TO_TEXTBOOK_SIGMA = 0.80   # RELION minimises -(4/pi) CC + |v|^2 + |a|^2: its prior is about pi/2 stiffer


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class ReferenceSpec(_Part):
    """One particle set with the map that its particles show."""

    particles: str = Field(description="particle STAR file with poses, CTF and half-sets (rlnRandomSubset)")
    half1: str = Field(description="half-map of the particles with rlnRandomSubset 1, MRC")
    half2: str = Field(description="half-map of the particles with rlnRandomSubset 2, MRC")
    mask: Optional[str] = Field(None, description="soft mask of the map, MRC; none: a sphere of 0.45 box")


def frames_in_order(part):
    """For validators of parts with a range of frames."""
    if part.last_frame != -1 and part.last_frame < part.first_frame:
        raise ValueError("the last frame %d comes before the first frame %d: -1 means the last of each movie" % (part.last_frame, part.first_frame))
    return part


class InputSpec(_Part):
    """Movies and how to read them."""

    movies: str = Field(description="corrected_micrographs.star of a RELION motion correction job")
    first_frame: int = Field(1, ge=1, description="first frame used, counted from 1")
    last_frame: int = Field(-1, ge=-1, description="last frame used, counted from 1; -1: the last of each movie")
    gain: Optional[str] = Field(None, description="gain reference that replaces the one named in the movies' STAR files")
    gain_rotation: int = Field(0, ge=0, le=3, description="times 90 degrees counter-clockwise applied to the gain")
    gain_flip: int = Field(0, ge=0, le=2, description="0 none, 1 upside down, 2 left to right; after the rotation")
    movie_flip_y: Optional[bool] = Field(None, description="turn frames upside down on reading; none: TIFF movies are turned, MRC and EER not, as RELION does")
    defects: Optional[str] = Field(None, description="defect file: text lines 'x y width height' or an MRC/TIFF map of bad pixels")
    hot_pixel_sigma: float = Field(8.0, ge=0, description="pixels whose temporal mean is this many standard deviations out are replaced; 0: off")
    eer_grouping: Optional[int] = Field(None, ge=1, description="EER frames per fraction; none: as upstream")
    coordinate_pixel_angstrom: Optional[float] = Field(None, gt=0, description="pixel size of rlnCoordinateX/Y in A; none: from the movies' STAR files")
    preflight: bool = Field(True, description="check on a few movies that predictions and movies agree in orientation and contrast")
    skip_other_frame_counts: bool = Field(False, description="leave out movies whose number of frames is not that of most movies, and list them; else every kind of movies takes part")
    half_sets_from_order: bool = Field(False, description="particles without half-sets: alternate them (not independent of the half-maps!)")
    growing: bool = Field(False, description="the lists of movies and particles will get longer: what the first run calibrated is kept for later ones, so finished movies stay finished (images only with dose weights that are given: new ones make new images)")

    _frames = model_validator(mode="after")(frames_in_order)


class PriorSpec(_Part):
    """Strengths of the motion prior: the three users know (all or none), and the estimated rest with its defaults."""

    velocity_sigma: Optional[float] = Field(None, gt=0, description="spatial prior strength: how fast particles move, A per (e/A^2)")
    correlation_distance_angstrom: Optional[float] = Field(None, gt=0, description="spatial correlation distance, A")
    acceleration_sigma: Optional[float] = Field(None, gt=0, description="acceleration prior strength: how fast the motion changes, A per (e/A^2)")
    relion_sigmas: Optional[Tuple[float, float, float]] = Field(None, description="RELION's sigma velocity, divergence, acceleration")
    hyperparameters_file: Optional[str] = Field(None, description="hyperparameters.json of an earlier job, or RELION's opt_params*.txt")
    rigid: bool = Field(False, description="do not estimate local motion: keep the input motion")

    @model_validator(mode="after")
    def _all_or_none(self):
        given = [n for n in ("velocity_sigma", "correlation_distance_angstrom", "acceleration_sigma") if getattr(self, n) is not None]
        if len(given) not in (0, 3):
            raise ValueError("only %s given: spatial strength, correlation distance and acceleration strength must be given "
                             "all three or not at all" % " and ".join(given))
        if self.relion_sigmas is not None and not all(0 < sigma for sigma in self.relion_sigmas):
            raise ValueError("RELION's sigmas are %g, %g and %g: three positive numbers were expected" % self.relion_sigmas)
        sources = [bool(given), self.relion_sigmas is not None, self.hyperparameters_file is not None]
        if sum(sources) > 1:
            raise ValueError("give the three strengths, RELION's sigmas or a hyperparameters file: only one of them")
        return self


class SearchSpec(_Part):
    """Search for the motion hyperparameters by the evidence of what aligns; held-out data of the opposite half-map judge them."""

    thoroughness: str = Field("none", pattern="^(none|fast|balanced|extensive)$", description="none, fast, balanced or extensive; none: the given or default hyperparameters; else how many rays and kinds of prior are searched")
    max_prior_strength: float = Field(500.0, gt=1, description="maximum total prior strength, in units of the default one: where rays end if motion has not stopped before")
    fourier_fraction: float = Field(0.35, gt=0.02, lt=0.98, description="fraction of Fourier components (pixels) used for alignment during the search; the rest judges")
    target_particles: int = Field(1000, ge=1, description="movies are drawn at random until they hold this many particles")
    cache_gib: float = Field(4.0, ge=0, description="memory for correlation maps during the search, GiB, at most half of what the job may use; what does not fit is kept on disk")


class AlignmentSpec(_Part):
    """How the correlation maps are made."""

    resolution_limit_angstrom: Optional[float] = Field(None, gt=0, description="finest resolution used for alignment and for the fit of dose weights, A; none: where the half-map FSC vanishes")
    all_components: bool = Field(True, description="use all Fourier components of the band in the final alignment instead of the fraction that the search aligns with")
    search_radius_angstrom: float = Field(10.0, gt=0, description="largest departure from the starting trajectory that is looked at, A")
    passes: int = Field(2, ge=1, le=4, description="alignment passes: the later ones know how strongly this movie moves and each particle's own blur inside its frames")


class DoseSpec(_Part):
    """Empirical dose weights."""

    weights_file: Optional[str] = Field(None, description="weights.npz of an earlier job, RELION's bfactors.star or CryoSPARC's refm_empirical_dw.npy")
    weights_pixel_angstrom: Optional[float] = Field(None, gt=0, description="pixel size that CryoSPARC's dose weights belong to, A; none: that of the movies")
    fit_low_resolution_angstrom: float = Field(20.0, gt=0, description="coarsest resolution of the dose weight fit, A")
    normalisation: str = Field("sum", pattern="^(sum|power|peak)$", description="sum: signal kept (particles); power: white noise stays white; peak. Given weights.npz and .json keep theirs")
    error_tolerance: float = Field(0.001, ge=0, description="share of the signal-to-noise ratio that errors of the dose weights may cost: from there on the weights are final and further movies are aligned and polished at once; 0: weights of all movies")


class OutputSpec(_Part):
    """The particles that leave."""

    box_px: Optional[int] = Field(None, ge=16, description="box cut from the movie in movie px; none: the reference's physical extent")
    crop_box_px: Optional[int] = Field(None, ge=16, description="box after Fourier cropping; none: not cropped")
    float16: bool = Field(False, description="write MRC mode 12 (16-bit floating point)")
    recenter: bool = Field(False, description="move the whole pixels of the refined origins into the coordinates")
    tracks_star: bool = Field(False, description="write RELION's <movie>_tracks.star besides")
    particle_diameter_angstrom: Optional[float] = Field(None, gt=0, description="circle inside which the background is not measured; none: from the mask")
    reconstruct: bool = Field(False, description="at the end, reconstruct half-maps of the particles before (input motion, standard exposure curve) and after, and compare their FSC and resolution")
    symmetry: str = Field("C1", description="point group of the reconstruction, oriented as in RELION: C1, C4, D2, T, O, I (the same as I2), I1, I2, I3, I4")
    stop_after: str = Field("particles", pattern="^(hyperparameters|dose-weights|particles)$", description="final processing stage: hyperparameters, dose-weights or particles")

    @model_validator(mode="after")
    def _point_group(self):
        if not re.fullmatch("([CD][1-9][0-9]{0,2}|T|O|I[1-4]?)", self.symmetry.upper()):
            raise ValueError("symmetry is %r: C1, C2 ..., D2 ..., T, O, I, I1, I2, I3 or I4 was expected" % self.symmetry)
        return self

    @model_validator(mode="after")
    def _boxes(self):
        for name in ("box_px", "crop_box_px"):
            if getattr(self, name) is not None and getattr(self, name) % 2:
                raise ValueError("%s is %d: it must be even" % (name, getattr(self, name)))
        if self.box_px and self.crop_box_px and self.crop_box_px > self.box_px:
            raise ValueError("crop box %d px is larger than the box %d px it is cropped from" % (self.crop_box_px, self.box_px))
        return self


class ComputeSpec(_Part):
    """Where it runs. Nothing here changes results but for rounding, and how fine a reconstruction's map can be in little memory."""

    device: str = Field("auto", description="cpu, cuda, cuda:0,cuda:1; auto: cuda if there is one")
    threads: int = Field(0, ge=0, description="CPU threads; 0: all cores that this process may use")
    workers: int = Field(0, ge=0, le=1024, description="worker processes on this machine, which share the threads; 0: one for each movie that the GPUs named work on at a time, none but the job itself if that is a single one or on the CPU")
    scheduler: Optional[str] = Field(None, description="address of a running Dask scheduler, tcp://host:port, whose workers do the movies")
    cluster: Optional[str] = Field(None, description="JSON file that says how SLURM is asked for worker jobs, see docs/reliability.md")
    read_timeout_seconds: float = Field(1800.0, ge=0, description="seconds after which the reading of one movie is given up, tried once more, and the movie failed; 0: never")
    worker_timeout_seconds: float = Field(14400.0, ge=0, description="seconds without any worker of the scheduler or cluster after which the job stops, to be gone on with by the same command; 0: never")
    memory_gib: Optional[float] = Field(None, gt=0, description="memory one process may use, GiB, the program itself included; none: half of what is free, at most 6 (16 where a GPU computes)")
    gpu_memory_gib: Optional[float] = Field(None, gt=0, description="memory one process may use of its GPU, GiB; none: 90 % of what is free there, divided by the movies per GPU")
    scratch_gib: float = Field(8.0, ge=0, description="disk for temporary files that one process may take for decoded frames, GiB: of movies that are needed again, and of those that do not fit into memory; 0: these are decoded anew")
    movies_per_gpu: int = Field(0, ge=0, le=8, description="movies worked on at a time on each GPU, each by a process of its own; 0: two on GPUs with enough memory, else one; one too for a job of fewer than 32 movies, and for workers of a scheduler or cluster")
    oversubscription_gib: float = Field(20.0, gt=0, description="memory of a GPU, GiB, from which movies_per_gpu 0 means two")
    slicing_device: Optional[str] = Field(None, description="device that holds the references and makes the predictions, such as cuda:1 or cpu; none or auto: that of the movies")

    @field_validator("slicing_device")
    @classmethod
    def _plain_name(cls, name):
        """As torch spells it, like the names in ``device``."""
        name = (name or "").strip().lower()
        return None if name in ("", "auto") else name


class JobSpec(_Part):
    """Everything a job was asked to do."""

    inputs: InputSpec
    references: List[ReferenceSpec] = Field(min_length=1)
    motion_prior: PriorSpec = PriorSpec()
    search: SearchSpec = SearchSpec()
    alignment: AlignmentSpec = AlignmentSpec()
    dose: DoseSpec = DoseSpec()
    output: OutputSpec = OutputSpec()
    compute: ComputeSpec = ComputeSpec()
    seed: int = Field(0, ge=0)
    schema_version: int = SCHEMA

    @property
    def wants_search(self):
        """Whether hyperparameters are searched: asked for, and neither strengths nor a file nor rigid motion are given."""
        prior = self.motion_prior
        given = prior.velocity_sigma or prior.relion_sigmas or prior.hyperparameters_file or prior.rigid
        return self.search.thoroughness != "none" and not given

    def to_json(self):
        """The spec as indented JSON text."""
        return self.model_dump_json(indent=2)

    @classmethod
    def build(cls, data, origin="the parameters"):
        """Validated spec from nested dictionaries; ``origin`` names the source in the error.

        Raises InputError with one sentence that names every wrong key or value.
        """
        try:
            return cls(**data)
        except ValidationError as error:
            raise InputError("%s: %s" % (origin, _sentence(error))) from None

    @classmethod
    def read(cls, path):
        """Spec from a JSON file. Raises InputError if it is not readable, not JSON, or has unknown keys or wrong values."""
        try:
            data = json.loads(read_text(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("job file %s cannot be read (%s): give the job.json of a job" % (path, error)) from None
        except (ValueError, RecursionError) as error:
            raise InputError("job file %s is not JSON (%s): give the job.json of a job" % (path, error)) from None
        if not isinstance(data, dict):
            raise InputError("job file %s holds a %s where an object of parameters was expected" % (path, type(data).__name__))
        return cls.build(data, str(path))


def _sentence(error):
    parts = []
    for item in error.errors():
        where = _short(".".join(str(p) for p in item["loc"]))
        if item["type"] == "extra_forbidden":
            parts.append("unknown key %r (check its spelling)" % where)
        elif item["type"] == "missing":
            parts.append("%r is missing" % where)
        elif item["type"] == "string_pattern_mismatch":
            parts.append("%s: %r is none of %s" % (where, _short(item["input"]), item["ctx"]["pattern"].strip("^$()").replace("|", ", ")))
        else:
            text = item["msg"].replace("Value error, ", "")
            parts.append("%s: %s" % (where, _short(text)) if where else _short(text))
    return "; ".join(parts[:MOST_FAULTS] + ["and %d more" % (len(parts) - MOST_FAULTS)] * (len(parts) > MOST_FAULTS))


def _short(text):
    """Text for a message: on one line, not too long."""
    text = " ".join(str(text).split())
    return text if len(text) <= 200 else text[:200] + "…"


DEFAULT_HYPERPARAMETERS = Hyperparameters(
    velocity_sigma=0.46, correlation_distance_angstrom=1500.0, acceleration_sigma=0.032, early_factor=25.0,
    early_dose_e_per_A2=3.3, jitter_angstrom=0.15, global_angstrom=0.40, offset_angstrom=15.0, kernel="matern",
    correlated_acceleration=True, movie_spread=1.5, common_sigma=0.3)
"""The prior used when none is given; the values' source is the table in docs/method.md."""


def relion_prior(velocity_sigma, divergence_sigma, acceleration_sigma):
    """RELION's three sigmas as our prior: exponential kernel, independent accelerations, nothing that RELION has not."""
    return Hyperparameters(
        velocity_sigma=RELION_TO_TEXTBOOK_SIGMA * velocity_sigma, correlation_distance_angstrom=divergence_sigma,
        acceleration_sigma=RELION_TO_TEXTBOOK_SIGMA * acceleration_sigma, early_factor=0.0, early_dose_e_per_A2=1.0,
        jitter_angstrom=0.0, global_angstrom=0.0, offset_angstrom=15.0, kernel="exponential", correlated_acceleration=False,
        movie_spread=0.0)
