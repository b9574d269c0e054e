"""When to touch a parameter, and what it is called elsewhere: for the form's help and docs/parameters.md. Keys are (part, name) of the specs."""
from collections import namedtuple

Guidance = namedtuple("Guidance", "when cryosparc relion", defaults=("", ""))
"""``when``: one or two sentences; ``cryosparc``, ``relion``: the name in reference based motion correction and in Bayesian polishing."""

GUIDANCE = {
    ("inputs", "first_frame"): Guidance("Leave it at 1: bad first frames get little dose weight by themselves.", "", "First movie frame"),
    ("inputs", "last_frame"): Guidance("Fewer frames are faster and cost low-resolution signal.", "", "Last movie frame"),
    ("inputs", "gain"): Guidance("Only if the movies do not name their gain, or name a wrong one."),
    ("inputs", "gain_rotation"): Guidance("What the alignment of the movies was told; a gain that RELION turned already needs nothing.", "", "Gain rotation"),
    ("inputs", "gain_flip"): Guidance("What the alignment of the movies was told; a gain that RELION turned already needs nothing.", "", "Gain flip"),
    ("inputs", "movie_flip_y"): Guidance("If the check of orientations says so."),
    ("inputs", "defects"): Guidance("If bad columns or areas of the camera show in the particles.", "", "Defect file"),
    ("inputs", "hot_pixel_sigma"): Guidance("Lower it if bright dots stay in the particles; 0 if gold or other strong spots are taken for hot pixels."),
    ("inputs", "eer_grouping"): Guidance("For EER movies only: so that a fraction has 0.5 to 1.5 e/A^2.", "EER number of fractions", "EER fractionation"),
    ("inputs", "preflight"): Guidance("Leave it on; off only for very few or very small particles, which it cannot see."),
    ("inputs", "half_sets_from_order"): Guidance("Only to try something: dose weights and verdict flatter then."),
    ("motion_prior", "velocity_sigma"): Guidance("If you know it from similar data, or local motion looks like noise (lower) or too stiff (higher).",
                                                 "Override: spatial prior strength", "Sigma for velocity"),
    ("motion_prior", "correlation_distance_angstrom"): Guidance("Longer where neighbours move alike: many particles, thick ice; shorter where they do not.",
                                                                "Override: spatial correlation distance", "Sigma for divergence"),
    ("motion_prior", "acceleration_sigma"): Guidance("Lower for smoother trajectories.", "Override: acceleration prior strength",
                                                     "Sigma for acceleration"),
    ("motion_prior", "rigid"): Guidance("To have dose weights only, or if the verdict says that local motion does not help."),
    ("search", "thoroughness"): Guidance("Once per microscope and kind of sample: later runs take the result as input; fast for a first look.",
                                         "Hyperparameter search thoroughness", "Train optimal parameters"),
    ("search", "target_particles"): Guidance("More if the error bars in the plot of the search are wide; the time grows with it.", "Target number of particles",
                                             "Use this many particles"),
    ("search", "fourier_fraction"): Guidance("Hardly ever.", "Fraction of Fourier components used for alignment", "Fraction of Fourier pixels for testing"),
    ("search", "max_prior_strength"): Guidance("Hardly ever: rays end by themselves where motion stops.", "Maximum total prior strength"),
    ("search", "cache_gib"): Guidance("Less on a small machine, more if the search writes much to disk.", "In-memory cache size"),
    ("alignment", "resolution_limit_angstrom"): Guidance("If the half-maps' FSC does not vanish although it should: duplicate particles, a mask that is too tight."),
    ("alignment", "search_radius_angstrom"): Guidance("Larger if the input motion is rough, as of movies aligned on few frames; memory and time grow with it."),
    ("alignment", "passes"): Guidance("1 is faster, without the movie's own strength and the blur inside frames; more than 2 only to try."),
    ("dose", "fit_low_resolution_angstrom"): Guidance("Coarser for large particles, finer if low frequencies look odd in the plot of correlations.", "",
                                                      "Minimum resolution for B-factor fit"),
    ("dose", "normalisation"): Guidance("sum for particles; power if you look at the noise of the images."),
    ("dose", "error_tolerance"): Guidance("0 to measure the weights on all movies; more to begin polishing earlier."),
    ("output", "stop_after"): Guidance("hyperparameters or dose weights to find them on some movies and give them to the run on all.", "Final processing stage"),
    ("output", "box_px"): Guidance("Larger for strong defocus, so that the signal spread by it stays inside.", "", "Extraction size (pix in unbinned movie)"),
    ("output", "crop_box_px"): Guidance("For super-resolution movies, and while resolution is far from Nyquist.", "Fourier crop to box size", "Re-scaled size"),
    ("output", "float16"): Guidance("Half the disk; the programs that follow must read it (RELION from version 4 on).",
                                    "Save results in 16-bit floating point", "Write output in float16"),
    ("output", "recenter"): Guidance("If refinement moved particles by many pixels, so that boxes are centred.", "Recenter particles"),
    ("output", "tracks_star"): Guidance("For scripts that read RELION's tracks."),
    ("output", "particle_diameter_angstrom"): Guidance("If the mask is far from the particle's size.", "", "Background circle diameter"),
    ("compute", "memory_gib"): Guidance("Less if other programs need the memory, more if much is free: then patches are kept instead of being made again."),
    ("compute", "gpu_memory_gib"): Guidance("Less if the GPU is shared with others."),
    ("compute", "movies_per_gpu"): Guidance("1 if two movies at a time get into each other's way."),
    ("compute", "oversubscription_gib"): Guidance("Higher for large movies on GPUs of medium size.", "Oversubscription memory threshold"),
    ("compute", "slicing_device"): Guidance("If the references are so large that a GPU does not hold them beside the movie."),
    ("compute", "workers"): Guidance("2 or more on a CPU with many cores."),
    ("compute", "cluster"): Guidance("To spread one run over many jobs of a SLURM cluster; not together with the queue of the form."),
    ("compute", "scheduler"): Guidance("If you start workers yourself; not together with the queue of the form."),
    ("compute", "read_timeout_seconds"): Guidance("Longer for slow storage with very large movies."),
    ("average", "binning"): Guidance("2 for super-resolution movies.", "", "Binning factor"),
    ("average", "unweighted"): Guidance("Leave it on: CTFs are estimated on the unweighted micrographs.", "", "Save non-dose weighted as well"),
    ("average", "even_odd"): Guidance("For denoising by Topaz, cryoCARE and the like."),
    ("average", "float16"): Guidance("Half the disk.", "Save results in 16-bit floating point", "Write output in float16"),
    ("average", "local_motion"): Guidance("Off to compare with rigid averages.")}


def elsewhere(part, name):
    """``CryoSPARC: …; RELION: …``, or "" where neither has it."""
    known = GUIDANCE[part, name]
    return "; ".join("%s: %s" % (program, text) for program, text in (("CryoSPARC", known.cryosparc), ("RELION", known.relion)) if text)
