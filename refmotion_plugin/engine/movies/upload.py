"""Frames on their way to a GPU: the next one is copied while this one is worked on; they stay there if there is room."""
import functools

import torch


@functools.lru_cache(maxsize=None)
def _copying(stream, device):
    """The one stream that copies to a device: what another has freed torch gives to none, so a stream for each movie would leave memory dead."""
    return stream(device)


class Uploader:
    """Frames of a movie in their narrow type on ``device``, copied by a stream of their own, which all movies share."""

    def __init__(self, frames, device):
        self.frames, self.device, self.stream = frames, device, _copying(torch.cuda.Stream, torch.device(device))
        self.coming = {}        # frame -> (tensor, event of its arrival); one at most, or as many as may stay
        self.kept, self.room = {}, 0        # frames that stay on the device, of at most so many bytes

    def take(self, f):
        """Frame ``f`` (H, W); work that is given to the current stream from now on waits for it, the host does not."""
        if f in self.kept:
            return self.kept[f]
        narrow, arrived = self.coming.pop(f, None) or self._send(f)
        current = torch.cuda.current_stream(self.device)
        current.wait_event(arrived)
        narrow.record_stream(current)
        if self._room_for_another(narrow):
            self.kept[f] = narrow
        return narrow

    def send(self, f):
        """Begin to copy frame ``f``, if there is one."""
        if f < len(self.frames) and f not in self.coming and f not in self.kept:
            tensor, arrived = self._send(f)
            if not self._room_for_another(tensor):
                self.coming.clear()
            self.coming[f] = tensor, arrived

    def _room_for_another(self, frame):
        return (len(self.kept) + len(self.coming) + 1) * frame.numel() * frame.element_size() <= self.room

    def _send(self, f):
        with torch.cuda.stream(self.stream):
            narrow = self.frames[f].to(self.device, non_blocking=True)
            return narrow, self.stream.record_event()
