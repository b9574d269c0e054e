"""Projections of a small asymmetric map by RELION 3.1, kept for the tests. Made with

    python -m tests.golden.make_optics_golden          (from the root of the repository, relion_project on the PATH)

which writes the map and a particle STAR file and runs, for each optics,

    relion_project --i map.mrc --ang particles.star --ctf --angpix 2.0 --o images

``relion_project`` applies CTF and even Zernikes, and the magnification matrix to the CTF alone; it leaves odd aberrations and
the stretch of the image out. Those are judged with ``relion_reconstruct`` where RELION is installed.
"""
import subprocess
import tempfile
from pathlib import Path

import mrcfile
import numpy as np

from tests.unit.optics_cases import blob_map, blobs, optics_group, particle_table

BOX, PIXEL = 48, 2.0
GOLDEN = Path(__file__).with_name("optics_relion_project.npz")
CASES = {
    "astigmatism": {},
    "even": dict(even_zernike=(0.3, 25.0, -8.0, -30.0, 150.0, -90.0, 60.0, 120.0, -160.0)),
    "magnification": dict(magnification_matrix=(1.05, 0.03, -0.01, 0.96)),
}


def golden_table():
    """Four particles with random poses, astigmatism, phase shift, B-factor and scale."""
    return particle_table(4, seed=11, phase_shift_degree=np.array([0, 0, 40.0, 90.0]), ctf_bfactor_A2=np.array([0, 20.0, 0, 30.0]),
                          ctf_scale=np.array([1, 0.8, 1.2, 1.0]))


def golden_map():
    """The map the images show."""
    return blob_map(BOX, *blobs(BOX, seed=2))


def write_map(path, data):
    """MRC file of a map or stack."""
    with mrcfile.new(str(path), overwrite=True) as mrc:
        mrc.set_data(np.asarray(data, np.float32))
        mrc.voxel_size = PIXEL


def write_star(path, table, group, stack="stack.mrcs"):
    """Particle STAR file of RELION 3.1 for one optics group."""
    optics = [("OpticsGroupName", group.name), ("OpticsGroup", group.number), ("Voltage", group.voltage_kilovolt),
              ("MicrographOriginalPixelSize", group.micrograph_original_pixel_angstrom),
              ("SphericalAberration", group.spherical_aberration_millimetre), ("AmplitudeContrast", group.amplitude_contrast),
              ("ImagePixelSize", group.image_pixel_angstrom), ("ImageSize", group.image_size_px), ("ImageDimensionality", 2)]
    optics += [("BeamTilt" + a, t) for a, t in zip("XY", group.beam_tilt_xy_milliradian) if any(group.beam_tilt_xy_milliradian)]
    optics += [(name, "[%s]" % ",".join(map(str, values))) for name, values in
               (("OddZernike", group.odd_zernike), ("EvenZernike", group.even_zernike)) if values]
    optics += [("MagMat" + ij, m) for ij, m in zip(("00", "01", "10", "11"), group.magnification_matrix)]
    columns = dict(AngleRot=table.rotation_zyz_degree[:, 0], AngleTilt=table.rotation_zyz_degree[:, 1],
                   AnglePsi=table.rotation_zyz_degree[:, 2], OriginXAngst=table.origin_yx_angstrom[:, 1],
                   OriginYAngst=table.origin_yx_angstrom[:, 0], DefocusU=table.defocus_u_angstrom, DefocusV=table.defocus_v_angstrom,
                   DefocusAngle=table.defocus_angle_degree, PhaseShift=table.phase_shift_degree, CtfBfactor=table.ctf_bfactor_A2,
                   CtfScalefactor=table.ctf_scale, OpticsGroup=table.optics_group, RandomSubset=table.half,
                   ImageName=["%d@%s" % (i + 1, stack) for i in range(len(table))], MicrographName=table.micrograph)
    Path(path).write_text("# version 30001\n\n" + _block("optics", *zip(*optics), [[value for _, value in optics]])
                          + "# version 30001\n\n" + _block("particles", columns, None, list(zip(*columns.values()))))


def _block(name, columns, _, rows):
    header = "".join("_rln%s #%d\n" % (column, i + 1) for i, column in enumerate(columns))
    return "data_%s\n\nloop_\n%s%s\n\n" % (name, header, "\n".join(" ".join(map(str, row)) for row in rows))


def main():
    """Run RELION and store its images."""
    images = {}
    with tempfile.TemporaryDirectory() as folder:
        write_map(Path(folder, "map.mrc"), golden_map())
        for name, aberrations in CASES.items():
            write_star(Path(folder, "particles.star"), golden_table(), optics_group(**aberrations))
            subprocess.run(["relion_project", "--i", "map.mrc", "--ang", "particles.star", "--ctf", "--angpix", str(PIXEL),
                            "--o", "images"], cwd=folder, check=True)
            images[name] = mrcfile.read(str(Path(folder, "images.mrcs"))).astype(np.float32)
    np.savez_compressed(GOLDEN, **images)


if __name__ == "__main__":
    main()
