"""A tiny RELION project written by hand: two movies, two optics groups, all aberrations. No simulation, no engine."""
import mrcfile
import numpy as np

from refmotion_plugin.contract.star import StarTable, write_tables

PIXEL, PARTICLE_PIXEL, BOX, FRAMES, SIZE_XY = 1.1, 2.2, 16, 5, (96, 80)
OPTICS = {
    "rlnOpticsGroupName": ["first", "second"], "rlnOpticsGroup": ["1", "2"], "rlnMicrographOriginalPixelSize": ["1.1", "1.1"],
    "rlnVoltage": ["300.0", "300.0"], "rlnSphericalAberration": ["2.7", "2.7"], "rlnAmplitudeContrast": ["0.1", "0.1"],
    "rlnImagePixelSize": ["2.2", "2.2"], "rlnImageSize": ["16", "16"], "rlnImageDimensionality": ["2", "2"],
    "rlnBeamTiltX": ["0.025", "-0.5"], "rlnBeamTiltY": ["-0.21", "0.75"],
    "rlnOddZernike": ["[-0.238,0.094,1.419,0,0,-2.163]", "[0,0,0.5,0,0,0]"],
    "rlnEvenZernike": ["[-4.19,5.92,-5.86,-3.5,-0.45,2.02,-1.6,-1.15,-2.27]", "[0,1,0,0,0,0,0,0,0]"],
    "rlnMagMat00": ["1.002", "0.999"], "rlnMagMat01": ["0.0015", "0"], "rlnMagMat10": ["0.0014", "0"], "rlnMagMat11": ["0.998", "1.001"],
    "rlnMtfFileName": ["mtf.star", "mtf.star"]}


def shifts_xy_px(movie):
    """(frame, 2) shifts to apply, x unlike y, not starting at zero in the second movie."""
    frame = np.arange(FRAMES, dtype=float)
    return np.stack([1.5 * frame + 0.25 * movie, -0.5 * frame ** 1.5 - 0.75 * movie], axis=1)


def particle_rows(n=12, seed=3):
    """Columns of the particle table as numbers."""
    rng = np.random.default_rng(seed)
    return {
        "rlnCoordinateX": rng.integers(5, 46, n) * 2.0, "rlnCoordinateY": rng.integers(5, 38, n) * 2.0,
        "rlnAngleRot": rng.uniform(-180, 180, n).round(4), "rlnAngleTilt": rng.uniform(1, 179, n).round(4),
        "rlnAnglePsi": rng.uniform(-180, 180, n).round(4), "rlnOriginXAngst": rng.normal(0, 3, n).round(4),
        "rlnOriginYAngst": rng.normal(0, 3, n).round(4), "rlnDefocusU": rng.uniform(9000, 12000, n).round(2),
        "rlnDefocusV": rng.uniform(7000, 9000, n).round(2), "rlnDefocusAngle": rng.uniform(0, 179, n).round(3),
        "rlnPhaseShift": rng.uniform(0, 90, n).round(3), "rlnCtfBfactor": rng.uniform(0, 20, n).round(3),
        "rlnCtfScalefactor": rng.uniform(0.8, 1.2, n).round(4)}


def write_project(folder, n=12):
    """Write the project into ``folder``; returns the particle columns (numbers and names)."""
    for name in ("Movies", "MotionCorr", "Extract"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for movie in range(2):
        _write_movie(folder, movie, rng)
    write_tables(folder / "MotionCorr" / "corrected_micrographs.star", [
        StarTable("optics", {name: OPTICS[name] for name in list(OPTICS)[:6]}),
        StarTable("micrographs", {"rlnMicrographName": ["MotionCorr/m%d.mrc" % m for m in range(2)],
                                  "rlnMicrographMetadata": ["MotionCorr/m%d.star" % m for m in range(2)], "rlnOpticsGroup": ["1", "2"]})])
    with mrcfile.new(folder / "Extract" / "all.mrcs", overwrite=True) as file:
        file.set_data(rng.normal(size=(n, BOX, BOX)).astype(np.float32))
    columns = dict(particle_rows(n))
    names = {"rlnImageName": ["%06d@Extract/all.mrcs" % (i + 1) for i in range(n)],
             "rlnMicrographName": ["MotionCorr/m%d.mrc" % (i % 2) for i in range(n)],
             "rlnOpticsGroup": [i % 2 + 1 for i in range(n)], "rlnRandomSubset": [1 + (i // 2) % 2 for i in range(n)]}
    columns.update(names)
    write_tables(folder / "particles.star", [StarTable("optics", OPTICS),
                                             StarTable("particles", {k: [str(v) for v in values] for k, values in columns.items()})])
    return columns


def _write_movie(folder, movie, rng):
    with mrcfile.new(folder / "Movies" / ("m%d.mrcs" % movie), overwrite=True) as file:
        file.set_data(rng.poisson(1.5, (FRAMES, SIZE_XY[1], SIZE_XY[0])).astype(np.int8))
    general = {"rlnImageSizeX": SIZE_XY[0], "rlnImageSizeY": SIZE_XY[1], "rlnImageSizeZ": FRAMES,
               "rlnMicrographMovieName": "Movies/m%d.mrcs" % movie, "rlnMicrographBinning": 1.0,
               "rlnMicrographOriginalPixelSize": PIXEL, "rlnMicrographDoseRate": 1.25, "rlnMicrographPreExposure": 0.5,
               "rlnVoltage": 300.0, "rlnMicrographStartFrame": 1, "rlnMotionModelVersion": 1}
    shift = shifts_xy_px(movie)
    tables = [StarTable("general", {k: [str(v)] for k, v in general.items()}),
              StarTable("global_shift", {"rlnMicrographFrameNumber": [str(f + 1) for f in range(FRAMES)],
                                         "rlnMicrographShiftX": ["%.6f" % v for v in shift[:, 0]],
                                         "rlnMicrographShiftY": ["%.6f" % v for v in shift[:, 1]]})]
    if movie == 0:
        coefficients = np.linspace(-0.5, 0.6, 36)
        tables += [StarTable("local_motion_model", {"rlnMotionModelCoeffsIdx": [str(i) for i in range(36)],
                                                    "rlnMotionModelCoeff": ["%.9f" % c for c in coefficients]}),
                   StarTable("hot_pixels", {"rlnCoordinateX": ["3", "40"], "rlnCoordinateY": ["7", "11"]})]
    write_tables(folder / "MotionCorr" / ("m%d.star" % movie), tables, single_row=("general",))


def write_map(path, box=16, pixel=PARTICLE_PIXEL, seed=0, value=None):
    """A small map of noise, or of one value."""
    data = np.random.default_rng(seed).normal(size=(box, box, box)).astype(np.float32) if value is None else np.full((box,) * 3, value, np.float32)
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(data)
        file.voxel_size = pixel
    return str(path)
