"""What a parameter is called in the form and elsewhere, and when to touch it: for the form's help and docs/parameters.md.

Keys are (part, name) of the specs; ``average`` is the part ``output`` of averages.
"""
from collections import namedtuple

Guidance = namedtuple("Guidance", "label when cryosparc relion", defaults=("", ""))
"""``label``: of the field in the form; ``when``: one or two sentences; ``cryosparc``, ``relion``: the name in reference based motion
correction and in RELION: of Bayesian polishing, of motion correction what belongs to reading movies."""

_AS_TOLD = "What the alignment of the movies was told; a gain that RELION turned already needs nothing."

GUIDANCE = {
    ("inputs", "first_frame"): Guidance(
        "First", "Leave it at 1: bad first frames get little dose weight by themselves.", "", "First movie frame"),
    ("inputs", "last_frame"): Guidance(
        "Last", "Fewer frames are faster and cost low-resolution signal.", "", "Last movie frame"),
    ("inputs", "gain"): Guidance(
        "Gain reference", "Only if the movies do not name their gain, or name a wrong one."),
    ("inputs", "gain_rotation"): Guidance(
        "Gain rotation", _AS_TOLD,
        "", "Gain rotation"),
    ("inputs", "gain_flip"): Guidance(
        "Gain flip", _AS_TOLD, "", "Gain flip"),
    ("inputs", "movie_flip_y"): Guidance(
        "Turn frames upside down?", "If the check of orientations says so."),
    ("inputs", "defects"): Guidance(
        "Defect file", "If bad columns or areas of the camera show in the particles.", "", "Defect file"),
    ("inputs", "hot_pixel_sigma"): Guidance(
        "Hot pixel threshold (σ)",
        "Lower it if bright dots stay in the particles; 0 if gold or other strong spots are taken for hot pixels."),
    ("inputs", "eer_grouping"): Guidance(
        "EER frames per fraction", "For EER movies only: so that a fraction has 0.5 to 1.5 e/A^2.",
        "EER number of fractions", "EER fractionation"),
    ("inputs", "preflight"): Guidance(
        "Check orientations first?", "Leave it on; off only for very few or very small particles, which it cannot see."),
    ("inputs", "skip_other_frame_counts"): Guidance(
        "Leave out movies with other frame counts?", "If they are cut off or otherwise odd; movies that are merely shorter or longer do no harm."),
    ("inputs", "half_sets_from_order"): Guidance(
        "Make up missing half-sets?", "Only to try something: dose weights and verdict flatter then."),
    ("motion_prior", "velocity_sigma"): Guidance(
        "Spatial prior strength (Å per e/Å²)",
        "If you know it from similar data, or local motion looks like noise (lower) or too stiff (higher).",
        "Override: spatial prior strength", "Sigma for velocity"),
    ("motion_prior", "correlation_distance_angstrom"): Guidance(
        "Spatial correlation distance (Å)", "Longer where neighbours move alike: many particles, thick ice; shorter where they do not.",
        "Override: spatial correlation distance", "Sigma for divergence"),
    ("motion_prior", "acceleration_sigma"): Guidance(
        "Acceleration prior strength (Å per e/Å²)", "Lower for smoother trajectories.",
        "Override: acceleration prior strength", "Sigma for acceleration"),
    ("motion_prior", "rigid"): Guidance(
        "Keep the input motion?", "To have dose weights only, or if the verdict says that local motion does not help."),
    ("search", "thoroughness"): Guidance(
        "Search the strengths", "Once per microscope and kind of sample: later runs take the result as input; fast for a first look.",
        "Hyperparameter search thoroughness", "Train optimal parameters"),
    ("search", "target_particles"): Guidance(
        "Target number of particles", "More if the error bars in the plot of the search are wide; the time grows with it.",
        "Target number of particles", "Use this many particles"),
    ("search", "fourier_fraction"): Guidance(
        "Fraction of Fourier components for alignment", "Hardly ever.",
        "Fraction of Fourier components used for alignment", "1 - Fraction of Fourier pixels for testing"),
    ("search", "max_prior_strength"): Guidance(
        "Maximum total prior strength", "Hardly ever: rays end by themselves where motion stops.", "Maximum total prior strength"),
    ("search", "cache_gib"): Guidance(
        "In-memory cache of the search (GiB)", "Less on a small machine, more if the search writes much to disk.", "In-memory cache size"),
    ("alignment", "resolution_limit_angstrom"): Guidance(
        "Finest resolution for alignment (Å)",
        "If the half-maps' FSC does not vanish although it should: duplicate particles, a mask that is too tight."),
    ("alignment", "all_components"): Guidance(
        "Use all Fourier components?", "Leave it on; off to see the trajectories that the search judges.", "Use all Fourier components"),
    ("alignment", "search_radius_angstrom"): Guidance(
        "Search radius (Å)", "Larger if the input motion is rough, as of movies aligned on few frames; memory and time grow with it."),
    ("alignment", "passes"): Guidance(
        "Alignment passes", "1 is faster, without the movie's own strength and each particle's own blur inside frames; more than 2 only to try."),
    ("dose", "fit_low_resolution_angstrom"): Guidance(
        "Coarsest resolution of the weight fit (Å)",
        "Coarser for large particles, finer if low frequencies look odd in the plot of correlations.",
        "", "Minimum resolution for B-factor fit"),
    ("dose", "normalisation"): Guidance(
        "Normalisation of the weights", "sum for particles; power if you look at the noise of the images."),
    ("dose", "error_tolerance"): Guidance(
        "Tolerated loss by errors of the weights", "0 to measure the weights on all movies; more to begin polishing earlier."),
    ("output", "stop_after"): Guidance(
        "Final processing stage", "hyperparameters or dose weights to find them on some movies and give them to the run on all.",
        "Final processing stage"),
    ("output", "box_px"): Guidance(
        "Box size (movie px)", "Larger for strong defocus, so that the signal spread by it stays inside.",
        "", "Extraction size (pix in unbinned movie)"),
    ("output", "crop_box_px"): Guidance(
        "Fourier-crop to box size (px)", "For super-resolution movies, and while resolution is far from Nyquist.",
        "Fourier crop to box size", "Re-scaled size"),
    ("output", "float16"): Guidance(
        "Write 16-bit floating point?", "Half the disk; the programs that follow must read it (RELION from version 4 on).",
        "Save results in 16-bit floating point", "Write output in float16"),
    ("output", "recenter"): Guidance(
        "Recentre particles?", "If refinement moved particles by many pixels, so that boxes are centred.", "Recenter particles"),
    ("output", "tracks_star"): Guidance(
        "Write RELION's tracks files?", "For scripts that read RELION's tracks."),
    ("output", "particle_diameter_angstrom"): Guidance(
        "Particle diameter (Å)", "If the mask is far from the particle's size.", "", "Diameter background circle"),
    ("output", "reconstruct"): Guidance(
        "Reconstruct before and after?", "To see what the run brought in Å; writing the particles takes about twice as long, and half as much disk again (as much again with 16-bit images)."),
    ("output", "symmetry"): Guidance(
        "Symmetry of the reconstruction", "The group of the refinement that the particles come from.", "", "Symmetry"),
    ("compute", "memory_gib"): Guidance(
        "Memory of a process (GiB)",
        "Less if other programs need the memory, more if much is free: then patches are kept instead of being made again."),
    ("compute", "gpu_memory_gib"): Guidance(
        "Memory of its GPU (GiB)", "Less if the GPU is shared with others."),
    ("compute", "scratch_gib"): Guidance(
        "Scratch disk of a process (GiB)", "Less if the disk for temporary files is small or slow, more for large movies if it is fast."),
    ("compute", "movies_per_gpu"): Guidance(
        "Movies at a time on each GPU", "1 if two movies at a time get into each other's way."),
    ("compute", "oversubscription_gib"): Guidance(
        "Oversubscription threshold (GiB)", "Higher for large movies on GPUs of medium size.", "Oversubscription memory threshold"),
    ("compute", "slicing_device"): Guidance(
        "Device of the references", "If the references are so large that a GPU does not hold them beside the movie."),
    ("compute", "workers"): Guidance(
        "Worker processes", "2 or more on a CPU with many cores."),
    ("compute", "cluster"): Guidance(
        "File of a SLURM cluster", "To spread one run over many jobs of a SLURM cluster; not together with the queue of the form."),
    ("compute", "scheduler"): Guidance(
        "Address of a Dask scheduler", "If you start workers yourself; not together with the queue of the form."),
    ("compute", "read_timeout_seconds"): Guidance(
        "Longest reading of a movie (s)", "Longer for slow storage with very large movies."),
    ("compute", "worker_timeout_seconds"): Guidance(
        "Longest time without workers (s)", "Longer where jobs wait longer in the cluster's queue."),
    ("average", "binning"): Guidance(
        "Binning", "2 for super-resolution movies.", "", "Binning factor"),
    ("average", "unweighted"): Guidance(
        "Unweighted micrographs too?", "Leave it on: CTFs are estimated on the unweighted micrographs.",
        "", "Save non-dose weighted as well"),
    ("average", "even_odd"): Guidance(
        "Even and odd sums for denoising", "For denoising by Topaz, cryoCARE and the like."),
    ("average", "float16"): Guidance(
        "Write 16-bit floating point?", "Half the disk.", "Save results in 16-bit floating point", "Write output in float16"),
    ("average", "local_motion"): Guidance(
        "Apply local motion?", "Off to compare with rigid averages.")}


def elsewhere(part, name):
    """``CryoSPARC: …; RELION: …``, or "" where neither has it."""
    known = GUIDANCE[part, name]
    return "; ".join("%s: %s" % (program, text) for program, text in (("CryoSPARC", known.cryosparc), ("RELION", known.relion)) if text)
