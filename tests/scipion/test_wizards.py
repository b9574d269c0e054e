"""Wizards: what they offer for known inputs, that they are found at their fields, and that a pick fills in the form."""
import os

import mrcfile
import numpy as np
import pytest
import pyworkflow as pw
from pwem.emlib.image import ImageHandler
from pwem.objects import SetOfMovies, Volume, VolumeMask

from refmotion_plugin import convert, machine, wizards
from refmotion_plugin.contract.errors import InputError
from refmotion_plugin.contract.spec import JobSpec
from refmotion_plugin.convert.resolution import shell_correlation
from refmotion_plugin.headless import new_protocol

from .relion_files import BOX, FRAMES, PARTICLE_PIXEL, PIXEL, SIZE_XY


class Form:
    """What a wizard sees of a form window."""

    class _Variable:
        def __init__(self, attribute):
            self.set = attribute.set

    def __init__(self, protocol):
        self.protocol, self.root, self.warnings = protocol, None, []
        self.gpuListVar, self.useGpuVar = self._Variable(protocol.gpuList), self._Variable(protocol.useGpu)

    def setVar(self, name, value):
        attribute = getattr(self.protocol, name)
        attribute.set(None if value == "" else value)       # as the form does with an emptied entry

    def showWarning(self, text):
        self.warnings.append(text)


@pytest.fixture
def averaging(in_project):
    return new_protocol(in_project[0], "ProtAverageMovies", inputMovies=(in_project[1], "outputMovies"))


def offered(wizard, protocol):
    """{value: reason} of a wizard."""
    return {s.value: s.reason for s in wizard().suggestions(protocol)}


def pick(wizard, protocol, value, monkeypatch):
    """Show a wizard and pick the line with this value."""
    form = Form(protocol)
    monkeypatch.setattr(wizard, "choose", lambda self, form, lines: next(line for line in lines if line.value == value))
    wizard().show(form)
    assert form.warnings == []


ALL = [c for c in vars(wizards).values() if isinstance(c, type) and issubclass(c, wizards.SuggestionWizard) and c._targets]


def test_the_host_finds_each_wizard_at_fields_that_exist(correction, averaging):
    domain = pw.Config.getDomain()
    found = {name: domain.findWizards(protocol, "tkinter") for name, protocol in (("correction", correction), ("average", averaging))}
    assert {w.__name__ for ws in found.values() for w in ws.values()} >= {c.__name__ for c in ALL} and len(ALL) == 7
    for wizard in ALL:
        for protocol_class, fields in wizard._targets:
            assert [f for f in fields if protocol_class().getParam(f) is None] == [], wizard.__name__


@pytest.mark.parametrize("wizard", ALL, ids=lambda w: w.__name__)
def test_every_suggestion_is_accepted_by_the_form(wizard, correction, averaging):
    for protocol in [p for p in (correction, averaging) if p.getClassName() in [c.__name__ for c, _ in wizard._targets]]:
        lines = wizard().suggestions(protocol)
        assert lines and len({line.value for line in lines}) == len(lines)
        for line in lines:
            form = Form(protocol)
            for name, value in line.fills.items():
                wizards.set_field(form, name, value)
            protocol.useGpu.set(False)
            assert protocol.validate() == [], (line, protocol.validate())


@pytest.mark.parametrize("wizard", ALL, ids=lambda w: w.__name__)
def test_missing_inputs_are_asked_for(wizard, in_project):
    if wizard is wizards.DeviceWizard:
        pytest.skip("needs no input")
    for protocol_class, _ in wizard._targets:
        form = Form(new_protocol(in_project[0], protocol_class.__name__))
        wizard().show(form)
        assert len(form.warnings) == 1 and form.warnings[0].startswith("Choose the input ")


def test_a_dialog_that_is_left_changes_nothing(correction, monkeypatch):
    monkeypatch.setattr(wizards.BoxSizeWizard, "choose", lambda self, form, lines: None)
    correction.boxSize.set(48)
    wizards.BoxSizeWizard().show(Form(correction))
    assert correction.boxSize.get() == 48


def test_box_follows_the_reference(correction, monkeypatch):
    extent = BOX * PARTICLE_PIXEL
    lines = offered(wizards.BoxSizeWizard, correction)
    assert "%d px, %.0f Å" % (extent / PIXEL, extent) in lines["empty"] and "input particles" in lines["32 px"]
    pick(wizards.BoxSizeWizard, correction, "40 px", monkeypatch)
    assert correction.boxSize.get() == 40
    pick(wizards.BoxSizeWizard, correction, "empty", monkeypatch)
    assert correction.boxSize.get() is None


def test_crop_box_keeps_the_particles_pixel(correction, monkeypatch):
    lines = offered(wizards.CropBoxWizard, correction)
    assert "input particles: pixel 2.200 Å, Nyquist 4.40 Å" in lines["16 px"]
    correction.boxSize.set(48)
    pick(wizards.CropBoxWizard, correction, "24 px", monkeypatch)
    assert JobSpec.build(correction._jobData({"movies": "m", "references": [{"half1": "1", "half2": "2"}]})).output.crop_box_px == 24


def test_frames_are_those_of_the_alignment(correction, averaging, in_project, monkeypatch):
    dose = in_project[1].outputMovies.getAcquisition().getDosePerFrame()
    lines = offered(wizards.FrameRangeWizard, correction)
    assert "all frames: 1 to %d in 2 movies, %.1f e/Å²" % (FRAMES, FRAMES * dose) in lines["1 to the last"]
    monkeypatch.setattr(wizards, "EARLY_DOSE", 3 * dose)
    pick(wizards.FrameRangeWizard, averaging, "1 to 3", monkeypatch)
    assert (averaging.firstFrame.get(), averaging.lastFrame.get()) == (1, 3)


def test_coordinates_tell_their_pixel(correction, monkeypatch):
    lines = wizards.CoordinatePixelWizard().suggestions(correction)
    assert [line.fills["coordinatePixel"] for line in lines] == [-1.0, PIXEL]
    x, y = convert.coordinate_extent_xy(correction.inputParticles.get())
    for line, scale in zip(lines, (PARTICLE_PIXEL / PIXEL, 1.0)):
        assert "(%.0f, %.0f) of %d x %d movie px" % ((scale * x, scale * y) + SIZE_XY) in line.reason
    pick(wizards.CoordinatePixelWizard, correction, "1.1", monkeypatch)
    assert correction.coordinatePixel.get() == pytest.approx(PIXEL)


@pytest.fixture
def rendered(correction, averaging, in_project):
    """EER movies rendered on a grid twice as fine as the set's size says, half as many Angstroms per pixel."""
    source = in_project[1].outputMovies
    movies = SetOfMovies(filename=":memory:")
    movies.copyInfo(source)
    movies.getAcquisition().opticsGroupInfo.set("data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnEERUpsampling #2\n_rlnEERGrouping #3\n1 2 1\n2 2 1\n")
    movies.setSamplingRate(PIXEL / 2)
    for movie in source.iterItems():
        movies.append(movie.clone())
    movies.write()
    for protocol in (correction, averaging):
        protocol.inputMovies.set(movies)
        protocol.inputMovies.setExtended(None)
    return movies


def test_sizes_are_those_of_the_grid_that_movies_were_rendered_on(correction, averaging, rendered, monkeypatch):
    assert convert.grid_size(rendered) == (2 * SIZE_XY[0], 2 * SIZE_XY[1])
    assert all("of 192 x 160 movie px" in line.reason for line in wizards.CoordinatePixelWizard().suggestions(correction))
    assert "96 x 80 px of 1.100 Å" in offered(wizards.BinningWizard, averaging)["2"]
    few = correction.inputParticles.get()
    monkeypatch.setattr(few, "getSize", lambda: 100)
    x, _ = convert.coordinate_extent_xy(few)
    correction.coordinatePixel.set(0.4 * 2 * SIZE_XY[0] / x * PIXEL / 2)        # they reach 0.4 of its width
    assert "of 192 x 160 movie px: their pixel size may be wrong" in "".join(correction._warnings())


def test_binning_says_the_size(averaging, monkeypatch):
    assert "48 x 40 px of 2.200 Å" in offered(wizards.BinningWizard, averaging)["2"]
    pick(wizards.BinningWizard, averaging, "2", monkeypatch)
    assert averaging.binning.get() == 2.0


def halves_that_agree_up_to(shell, box=32, seed=0):
    """Two cubes of the same noise up to a shell and independent noise beyond."""
    rng = np.random.default_rng(seed)
    common, one, two = (np.fft.fftn(rng.normal(size=(box,) * 3)) for _ in range(3))
    k = np.fft.fftfreq(box, 1 / box)
    near = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k ** 2) < shell - 0.5
    return [np.fft.ifftn(np.where(near, common, own)).real.astype(np.float32) for own in (one, two)]


@pytest.mark.parametrize("box", [32, 33])
def test_shell_correlation(box):
    curve = shell_correlation(*halves_that_agree_up_to(9, box))
    assert len(curve) == box // 2 + 1 and np.allclose(curve[:9], 1, atol=1e-4) and np.abs(curve[9:]).max() < 0.2
    half = halves_that_agree_up_to(9, box)[0]
    assert np.allclose(shell_correlation(half, -half), -1)


@pytest.mark.parametrize("box", [12, 13])
def test_shell_correlation_counts_all_of_space(box):
    """Against the sums over the whole transform."""
    rng = np.random.default_rng(2)
    one, two = rng.normal(size=(2, box, box, box)) + 0.5 * rng.normal(size=(box,) * 3)
    a, b, k = np.fft.fftn(one), np.fft.fftn(two), np.fft.fftfreq(box, 1 / box)
    radius = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k ** 2))
    expected = [(a * b.conj())[radius == r].sum().real / np.sqrt((abs(a[radius == r]) ** 2).sum() * (abs(b[radius == r]) ** 2).sum())
                for r in range(box // 2 + 1)]
    assert np.allclose(shell_correlation(one, two), expected, atol=1e-5)


def volume_of(tmp_path, cubes, pixel=2.2):
    paths = []
    for name, cube in zip(("half1", "half2", "mask"), cubes):
        paths.append(str(tmp_path / (name + ".mrc")))
        with mrcfile.new(paths[-1]) as file:
            file.set_data(cube)
    volume = Volume(location=paths[0])
    volume.setSamplingRate(pixel)
    volume.setHalfMaps(paths[:2])
    mask = VolumeMask(location=paths[2]) if len(paths) > 2 else None
    return volume, mask


def test_resolution_limit_follows_the_half_maps(correction, tmp_path, monkeypatch):
    volume, _ = volume_of(tmp_path, halves_that_agree_up_to(9))
    expected = 32 * 2.2 / 8.5
    found = convert.map_resolution(volume)
    assert found.at_half_angstrom == pytest.approx(expected, rel=0.03) and found.at_half_angstrom > found.at_0143_angstrom
    correction.inputVolume.set(volume)
    correction.inputVolume.setExtended(None)
    correction.inputMask.set(None)
    line = next(s for s in wizards.ResolutionLimitWizard().suggestions(correction) if "FSC = 0.5" in s.reason)
    pick(wizards.ResolutionLimitWizard, correction, line.value, monkeypatch)
    assert correction.resolutionLimit.get() == pytest.approx(expected, rel=0.03)
    crop = [s for s in wizards.CropBoxWizard().suggestions(correction) if "finer than the half-maps agree" in s.reason]
    assert crop and crop[0].fills["cropBoxSize"] == convert.even_box(32 * 2.2, found.at_0143_angstrom / 2.5)


def test_half_maps_in_other_formats_and_such_that_cannot_be_read(correction, tmp_path):
    volume, _ = volume_of(tmp_path, halves_that_agree_up_to(9))
    expected = convert.map_resolution(volume)
    others = [str(tmp_path / (name + ".vol")) for name in ("half1", "half2")]
    for path, other in zip(volume.getHalfMaps(asList=True), others):
        ImageHandler().convert(path, other)
    volume.setHalfMaps(others)
    assert convert.map_resolution(volume) == pytest.approx(expected)
    correction.inputVolume.set(volume)
    correction.inputVolume.setExtended(None)
    correction.inputMask.set(None)
    assert any("half-maps agree" in line.reason for line in wizards.CropBoxWizard().suggestions(correction))
    os.truncate(others[1], 2000)
    with pytest.raises(InputError, match="half2.vol cannot be read"):
        convert.map_resolution(volume)
    assert "empty" in offered(wizards.CropBoxWizard, correction)


def test_the_mask_counts(tmp_path):
    """Halves that agree everywhere inside the mask and nowhere outside."""
    (inside, _), (one, two) = halves_that_agree_up_to(99), halves_that_agree_up_to(0, seed=1)
    z, y, x = np.mgrid[:32, :32, :32] - 16
    mask = (np.sqrt(x ** 2 + y ** 2 + z ** 2) < 8).astype(np.float32)
    volume, masked = volume_of(tmp_path, [np.where(mask > 0, inside, one), np.where(mask > 0, inside, two), mask])
    assert convert.map_resolution(volume, masked).at_half_angstrom == pytest.approx(4.4)
    assert convert.map_resolution(volume).at_half_angstrom > 10
    small = np.ones((16,) * 3, np.float32)
    with pytest.raises(InputError, match="different boxes"):
        os.remove(tmp_path / "mask.mrc")
        with mrcfile.new(str(tmp_path / "mask.mrc")) as file:
            file.set_data(small)
        convert.map_resolution(volume, masked)


GPUS = "0, GPU-aaaa1, NVIDIA A100\n1, GPU-bbbb2, NVIDIA A100\n2, GPU-cccc3, NVIDIA L4\n"


@pytest.fixture
def four_cores_three_gpus(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\ncat <<E\n%sE\n" % GPUS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:%s" % (tmp_path, os.environ["PATH"]))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "usable_cores", lambda: 12)


@pytest.mark.parametrize("visible, expected", [(None, ["NVIDIA A100", "NVIDIA A100", "NVIDIA L4"]), ("", []), ("2,0", ["NVIDIA L4", "NVIDIA A100"]),
                                               ("GPU-bbbb2", ["NVIDIA A100"]), ("1,-1,0", ["NVIDIA A100"]), ("7", [])])
def test_gpus_are_those_the_run_would_see(four_cores_three_gpus, monkeypatch, visible, expected):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.visible_gpus() == expected


def test_devices_are_filled_in(four_cores_three_gpus, correction, monkeypatch):
    lines = offered(wizards.DeviceWizard, correction)
    assert lines["3 GPUs"] == "2 x NVIDIA A100, 1 x NVIDIA L4; 12 threads in all" and lines["1 GPU"] == "1 x NVIDIA A100; 12 threads in all"
    pick(wizards.DeviceWizard, correction, "3 GPUs", monkeypatch)
    assert correction.usesGpu() and correction.getGpuList() == [0, 1, 2] and correction.numberOfThreads.get() == 12
    assert correction._device() == "cuda:0,cuda:1,cuda:2"
    pick(wizards.DeviceWizard, correction, "no GPU", monkeypatch)
    assert not correction.usesGpu() and correction._device() == "cpu" and correction.numberOfThreads.get() == 12


def test_no_gpu_at_all(monkeypatch, correction):
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.visible_gpus() == [] and machine.usable_cores() >= 1
    assert "no GPU is seen here" in offered(wizards.DeviceWizard, correction)["no GPU"]
