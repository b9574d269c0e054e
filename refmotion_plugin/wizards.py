"""Wizards of the forms: each lists what fits the inputs, in words, and fills in what the user picks."""
from collections import namedtuple

from pyworkflow.wizard import Wizard

from . import convert, machine
from .contract.errors import InputError
from .protocols import ProtAverageMovies, ProtReferenceMotionCorrection
from .protocols.references import chosen_references

Suggestion = namedtuple("Suggestion", "value reason fills")
"""One line of the list: what would be filled in and why, as text, and ``fills`` {name of a form field: value}."""

EARLY_DOSE = 40.0       # e/A^2: beyond it 2 % of the amplitude are left at 4 A (Grant & Grigorieff 2015)
SMALLEST_BOX = 16       # px, as the form accepts it
FINER_NYQUIST = 1.25    # an output whose Nyquist is this much finer than the map leaves room for a better map


class SuggestionWizard(Wizard):
    """Base: subclasses name their fields in ``_targets`` and give the suggestions."""

    _title, _message = "", "Pick a line; nothing is changed on Cancel."

    def suggestions(self, protocol):
        """List of :class:`Suggestion`. Raises InputError with what is missing."""
        raise NotImplementedError

    def show(self, form, *params):
        """Called by the form's wizard button."""
        try:
            offered = self.suggestions(form.protocol)
        except InputError as error:
            form.showWarning(str(error))
            return
        chosen = self.choose(form, offered)
        for name, value in (chosen.fills.items() if chosen is not None else ()):
            set_field(form, name, value)

    def choose(self, form, offered):
        """Let the user pick one; None if the dialog was left."""
        from .suggestion_dialog import ask          # needs a window system
        return ask(form.root, self._title, self._message, offered)


def set_field(form, name, value):
    """Fill in a field of a form window; GPU list and switch are no ordinary fields there."""
    special = {"gpuList": "gpuListVar", "useGpu": "useGpuVar"}
    if name in special:
        getattr(form, special[name]).set(value)
    else:
        form.setVar(name, value)


def needed(pointer, sentence):
    """The object of an input that has been chosen. Raises InputError with the sentence."""
    item = pointer.get()
    if item is None:
        raise InputError(sentence)
    return item


def movies_of(protocol):
    """The input movies."""
    return needed(protocol.inputMovies, "Choose the input movies first.")


def reference_of(protocol):
    """The first reference; its volume has been chosen."""
    reference = chosen_references(protocol)[0]
    needed(protocol.inputVolume, "Choose the input volume first.")
    return reference


class BoxSizeWizard(SuggestionWizard):
    """Box cut from the movie."""

    _targets = [(ProtReferenceMotionCorrection, ["boxSize"])]
    _title = "Box size in movie pixels"

    def suggestions(self, protocol):
        pixel, reference = movies_of(protocol).getSamplingRate(), reference_of(protocol)
        extent = convert.map_extent(reference.volume)
        found = [Suggestion("empty", "the reference's extent: %d px, %.0f Å" % (convert.even_box(extent, pixel), extent), {"boxSize": ""})]
        if reference.particles is not None:
            images = reference.particles.getDim()[0] * reference.particles.getSamplingRate()
            box = convert.even_box(images, pixel)
            found.append(Suggestion("%d px" % box, "the extent of the input particles: %.0f Å" % images, {"boxSize": box}))
        larger = convert.even_box(1.25 * extent, pixel)
        found.append(Suggestion("%d px" % larger, "a quarter wider than the reference, %.0f Å: for strong defocus, whose rings reach far"
                                % (larger * pixel), {"boxSize": larger}))
        return found


class CropBoxWizard(SuggestionWizard):
    """Box of the output images after Fourier cropping."""

    _targets = [(ProtReferenceMotionCorrection, ["cropBoxSize"])]
    _title = "Size of the output images in pixels"

    def suggestions(self, protocol):
        pixel, reference = movies_of(protocol).getSamplingRate(), reference_of(protocol)
        box = protocol.boxSize.get() or convert.even_box(convert.map_extent(reference.volume), pixel)
        found = [Suggestion("empty", "not cropped: %d px of %.3f Å, Nyquist %.2f Å" % (box, pixel, 2 * pixel), {"cropBoxSize": ""})]
        if reference.particles is not None:
            found += self._cropped(box, pixel, reference.particles.getSamplingRate(), "the pixel of the input particles")
        try:
            resolution = convert.map_resolution(reference.volume, reference.mask).at_0143_angstrom
        except InputError:          # the other lines need no map's content
            return found
        return found + self._cropped(box, pixel, resolution / FINER_NYQUIST / 2,
                                     "Nyquist %.0f %% finer than the half-maps agree (%.2f Å)" % (100 * (FINER_NYQUIST - 1), resolution))

    @staticmethod
    def _cropped(box, pixel, wanted, reason):
        crop = convert.even_box(box * pixel, wanted)
        if not SMALLEST_BOX <= crop < box:
            return []
        got = box * pixel / crop
        return [Suggestion("%d px" % crop, "%s: pixel %.3f Å, Nyquist %.2f Å" % (reason, got, 2 * got), {"cropBoxSize": crop})]


class ResolutionLimitWizard(SuggestionWizard):
    """Finest resolution used for alignment, from the half-maps."""

    _targets = [(ProtReferenceMotionCorrection, ["resolutionLimit"])]
    _title = "Finest resolution for alignment"

    def suggestions(self, protocol):
        reference, nyquist = reference_of(protocol), 2 * movies_of(protocol).getSamplingRate()
        where_of = {}
        masked = [(reference.mask, "inside the mask")] if reference.mask is not None else []
        for mask, where in masked + [(None, "of the whole maps")]:
            resolution = convert.map_resolution(reference.volume, mask)
            for value, threshold in ((resolution.at_0143_angstrom, "0.143"), (resolution.at_half_angstrom, "0.5")):
                where_of.setdefault(max(round(value, 2), round(nyquist, 2)), []).append("FSC = %s %s" % (threshold, where))
        automatic = Suggestion("empty", "up to where the FSC of the half-maps vanishes, each shell with its weight: best as a rule",
                               {"resolutionLimit": ""})
        return [automatic] + [Suggestion("%.2f Å" % value, ", ".join(where), {"resolutionLimit": value})
                              for value, where in where_of.items()]


class FrameRangeWizard(SuggestionWizard):
    """First and last frame, from the movies' alignment and dose."""

    _targets = [(ProtReferenceMotionCorrection, ["firstFrame", "lastFrame"]), (ProtAverageMovies, ["firstFrame", "lastFrame"])]
    _title = "Frames to use"

    def suggestions(self, protocol):
        """All frames, the first ones, or all but the first."""
        movies = convert.frame_summary(movies_of(protocol))
        frames, dose = movies.last - movies.first + 1, movies.dose_per_frame
        others = "; %d movies have other frames or doses" % movies.other if movies.other else ""
        found = [self._range(1, -1, "all frames: %d to %d in %d movies, %.1f e/Å²%s"
                             % (movies.first, movies.last, movies.movies, frames * dose, others))]
        enough = int(EARLY_DOSE / dose)
        if enough < frames:
            found.append(self._range(1, movies.first + enough - 1, "the first %.0f e/Å²: faster; later frames count little at high "
                                     "resolution, but help large particles at low resolution" % (enough * dose)))
        if frames > 2:
            found.append(self._range(movies.first + 1, -1, "without the first frame (%.1f e/Å²): only if it is damaged or blurred; "
                                     "otherwise its dose weight takes care of it" % dose))
        return found

    @staticmethod
    def _range(first, last, reason):
        return Suggestion("%d to %s" % (first, "the last" if last == -1 else last), reason, {"firstFrame": first, "lastFrame": last})


class CoordinatePixelWizard(SuggestionWizard):
    """Which pixels the coordinates are counted in: the choice whose coordinates fill the movie is right."""

    _targets = [(ProtReferenceMotionCorrection, ["coordinatePixel"])]
    _title = "Pixel size of the coordinates"
    _message = "Coordinates of the right pixel size reach nearly to the movie's edges, never beyond."

    def suggestions(self, protocol):
        movies = movies_of(protocol)
        particles = needed(protocol.inputParticles, "Choose the input particles first.")
        choices = [(-1.0, particles.getSamplingRate(), "that of the particle images, as extraction in Scipion stores them")]
        if abs(movies.getSamplingRate() - particles.getSamplingRate()) > 1e-3 * movies.getSamplingRate():
            choices.append((movies.getSamplingRate(), movies.getSamplingRate(), "that of the movies, as in RELION's STAR files"))
        found = []
        for value, pixel, reason in choices:
            fit = convert.coordinate_fit(movies, particles, pixel)
            found.append(Suggestion("%.4g" % value, "%s, %.3f Å: coordinates reach (%.0f, %.0f) of %d x %d movie px"
                                    % ((reason, pixel) + fit.reach_xy_px + fit.size_xy_px), {"coordinatePixel": value}))
        return found


class BinningWizard(SuggestionWizard):
    """Binning of averaged micrographs."""

    _targets = [(ProtAverageMovies, ["binning"])]
    _title = "Binning of the micrographs"

    def suggestions(self, protocol):
        movies = movies_of(protocol)
        pixel, (width, height) = movies.getSamplingRate(), convert.grid_size(movies)
        return [Suggestion("%g" % factor, "%s: %d x %d px of %.3f Å, Nyquist %.2f Å"
                           % (reason, convert.even_box(width, factor), convert.even_box(height, factor), factor * pixel,
                              2 * factor * pixel), {"binning": factor})
                for factor, reason in ((1.0, "pixels as in the movie"), (2.0, "super-resolution movies to physical pixels"),
                                       (4.0, "small, to look at and to pick on"))]


class DeviceWizard(SuggestionWizard):
    """GPUs and threads of this machine."""

    _targets = [(ProtReferenceMotionCorrection, ["deviceWizard"]), (ProtAverageMovies, ["deviceWizard"])]
    _title = "GPUs and threads of this machine"
    _message = "For a run in a queue count what its job gets instead: GPUs from 0, threads as cores of the job."

    def suggestions(self, protocol):
        cores, gpus = machine.usable_cores(), machine.visible_gpus()
        found = []
        for count in sorted({len(gpus), min(1, len(gpus))} - {0}, reverse=True):
            found.append(Suggestion("%d GPU%s" % (count, "s" if count > 1 else ""), "%s; %d threads in all" % (_counted(gpus[:count]), cores),
                                    {"useGpu": 1, "gpuList": " ".join(map(str, range(count))), "numberOfThreads": cores}))
        reason = "%d cores" % cores if gpus else "no GPU is seen here; %d cores" % cores
        found.append(Suggestion("no GPU", reason, {"useGpu": 0, "numberOfThreads": cores}))
        return found


def _counted(names):
    """``4 x NVIDIA A100, 1 x ...``."""
    return ", ".join("%d x %s" % (names.count(name), name) for name in dict.fromkeys(names))
