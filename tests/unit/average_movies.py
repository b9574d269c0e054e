"""Small movies on disk with the STAR files of a motion correction job, for the tests of averaging."""
import mrcfile
import numpy as np

from refmotion_plugin.contract.average_spec import AverageSpec
from refmotion_plugin.contract.star import StarTable, read_corrected_micrographs, read_movie_metadata, write_tables
from refmotion_plugin.engine.movies.stack import load_movie
from refmotion_plugin.engine.stages.average import average_movie

PIXEL, DOSE = 1.5, 1.2


def write_movie(folder, name, frames, shift_xy_px=None, coefficients=None, **general):
    """An MRC movie (frame, H, W) float32 and its STAR file; ``shift_xy_px`` as files have it: to apply, (x, y)."""
    frames = np.asarray(frames, dtype=np.float32)
    (folder / "Movies").mkdir(parents=True, exist_ok=True)
    with mrcfile.new(str(folder / "Movies" / (name + ".mrcs")), overwrite=True) as file:
        file.set_data(frames)
    values = {"rlnImageSizeX": frames.shape[2], "rlnImageSizeY": frames.shape[1], "rlnImageSizeZ": len(frames),
              "rlnMicrographMovieName": folder / "Movies" / (name + ".mrcs"), "rlnMicrographBinning": 1,
              "rlnMicrographOriginalPixelSize": PIXEL, "rlnMicrographDoseRate": DOSE, "rlnVoltage": 300}
    values.update(general)
    shift = np.zeros((len(frames), 2)) if shift_xy_px is None else np.asarray(shift_xy_px)
    tables = [StarTable("general", {k: [str(v)] for k, v in values.items()}),
              StarTable("global_shift", {"rlnMicrographFrameNumber": [str(f + 1) for f in range(len(frames))],
                                         "rlnMicrographShiftX": ["%.9f" % v for v in shift[:, 0]],
                                         "rlnMicrographShiftY": ["%.9f" % v for v in shift[:, 1]]})]
    if coefficients is not None:
        tables.append(StarTable("local_motion_model", {"rlnMotionModelCoeffsIdx": [str(i) for i in range(36)],
                                                       "rlnMotionModelCoeff": ["%.12g" % c for c in coefficients]}))
    write_tables(folder / (name + ".star"), tables, single_row=("general",))


def write_list(folder, names, groups=None):
    """corrected_micrographs.star of some movies; returns its path."""
    groups = groups or [1] * len(names)
    numbers = sorted(set(map(str, groups)))
    same = {"rlnMicrographOriginalPixelSize": PIXEL, "rlnVoltage": 300, "rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1,
            "rlnMicrographPixelSize": PIXEL}
    optics = dict({"rlnOpticsGroupName": ["group%s" % n for n in numbers], "rlnOpticsGroup": numbers},
                  **{name: [str(value)] * len(numbers) for name, value in same.items()})
    columns = {"rlnMicrographName": ["MotionCorr/%s.mrc" % n for n in names], "rlnMicrographMetadata": [str(folder / (n + ".star")) for n in names],
               "rlnOpticsGroup": list(map(str, groups)), "rlnAccumMotionTotal": ["%d.5" % i for i in range(len(names))],
               "rlnMicrographNameNoDW": ["old_%s.mrc" % n for n in names]}
    write_tables(folder / "corrected_micrographs.star", [StarTable("optics", optics), StarTable("micrographs", columns)])
    return folder / "corrected_micrographs.star"


def averaged(folder, frames, spec=None, weights=None, **movie):
    """AveragedMovie of one movie; ``spec``: parts of the AverageSpec."""
    write_movie(folder, "m", frames, **movie)
    parts = dict({"inputs": {}}, **(spec or {}))
    parts["inputs"] = dict({"movies": str(write_list(folder, ["m"])), "hot_pixel_sigma": 0}, **parts["inputs"])
    spec = AverageSpec.build(parts)
    metadata = read_movie_metadata(read_corrected_micrographs(spec.inputs.movies)[0][0].metadata_star, "MotionCorr/m.mrc")
    return average_movie(metadata, spec, load_movie(metadata, spec.inputs), weights=weights)
