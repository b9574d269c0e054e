"""Square patches around particles, cut from a frame at whole pixels; the rest of the position stays a sub-pixel remainder."""
import torch


def corner_for(center_yx_px, size):
    """First pixel of the box around a position and what is left below one pixel.

    corner = round(center) - size // 2, so the box centre (pixel ``size // 2``) is the whole pixel nearest to the position;
    remainder = center - round(center): the position sits at ``size // 2 + remainder`` inside the patch.

    Parameters
    ----------
    center_yx_px : tensor (..., 2), movie px counted from the centre of pixel (0, 0).
    size : box in movie px.

    Returns
    -------
    corner_yx (..., 2) int64 and remainder_yx_px (..., 2) in [-0.5, 0.5], dtype of the input.
    """
    nearest = torch.round(center_yx_px)
    return nearest.to(torch.int64) - size // 2, center_yx_px - nearest


def cut_patches(frame, corner_yx, size, out=None):
    """Patches of one frame.

    What sticks out of the frame is filled with the mean of the inside part of that patch (of the frame, if nothing is
    inside): no wrap and no zeros, which would be edges in the Fourier transform.

    Stacked views were the fastest of eight ways on CPU (36 frames of 2048 x 2048, 100 patches of 256 px, one thread:
    0.12 s; one gather from a strided window view 0.33 s, index_select of rows 0.16 s): whole rows are copied, no index
    tensor is read.

    Parameters
    ----------
    frame : tensor (H, W), any device; whole numbers become float32, after they were cut.
    corner_yx : int64 (P, 2) first pixel of each box, best on the host; may lie outside the frame.
    size : box in px.
    out : (P, size, size) tensor to write into, or None.

    Returns
    -------
    tensor (P, size, size) on the frame's device.
    """
    height, width = frame.shape
    corners = corner_yx.tolist()
    kind = frame.dtype if frame.is_floating_point() else torch.float32
    if not corners:
        return frame.new_empty((0, size, size), dtype=kind) if out is None else out
    if frame.is_cuda and min(frame.shape) >= size:
        patches = Gather(corner_yx.cpu()[:, None], frame.shape, size, frame.device)(frame, 0, slice(0, len(corners)))
        return patches if out is None else out.copy_(patches)
    inside = [0 <= y <= height - size and 0 <= x <= width - size for y, x in corners]
    if kind == frame.dtype or not all(inside):
        views = [frame[y:y + size, x:x + size].to(kind) if whole else _filled_patch(frame, y, x, size, kind)
                 for (y, x), whole in zip(corners, inside)]
        return torch.stack(views, out=out)
    step, first = frame.stride(), frame.storage_offset()
    narrow = torch.stack([frame.as_strided((size, size), step, first + y * step[0] + x * step[1]) for y, x in corners])      # sooner than slices
    return narrow.to(kind) if out is None else out.copy_(narrow)


def _filled_patch(frame, y, x, size, kind):
    """A patch that sticks out: the inside part, and its mean elsewhere."""
    height, width = frame.shape
    inside = frame[max(y, 0):max(y + size, 0), max(x, 0):max(x + size, 0)]
    inside = inside.to(kind)
    if not inside.numel():
        return frame.to(kind).mean().expand(size, size)
    patch = inside.mean().repeat(size, size)
    top, left = max(-y, 0), max(-x, 0)
    patch[top:top + inside.shape[0], left:left + inside.shape[1]] = inside
    return patch


class Gather:
    """What :func:`cut_patches` does for every frame of a movie, by few kernels on a GPU: it would wait for the host to name patches one by one.

    ``corner_yx`` int64 (P, F, 2) on the host; ``shape_yx`` of the frames, at least ``size`` px.
    """

    def __init__(self, corner_yx, shape_yx, size, device):
        shape = torch.tensor(tuple(shape_yx))
        held = torch.minimum(corner_yx.clamp(min=0), shape - size)
        self.some_outside = bool(((corner_yx >= shape) | (corner_yx <= -size)).any())
        self.size, self.held, self.corner_yx = size, held.to(device), corner_yx.to(device)
        frame, self.row = torch.nonzero((held != corner_yx).any(-1).T).unbind(-1)       # of patches that stick out, frame after frame
        self.first = torch.searchsorted(frame, torch.arange(corner_yx.shape[1] + 1)).tolist()
        self.row_there, self.last_yx = self.row.to(device), (shape - 1).to(device)

    def __call__(self, frame, f, part):
        """Patches (p, size, size) of frame number ``f``, (H, W), and the particles of the slice ``part``."""
        kind = frame.dtype if frame.is_floating_point() else torch.float32
        y, x = self.held[part, f].unbind(-1)
        patches = frame.unfold(0, self.size, 1).unfold(1, self.size, 1)[y, x].to(kind)
        rows = self.row[self.first[f]:self.first[f + 1]]
        begin, end = (self.first[f] + int((rows < bound).sum()) for bound in (part.start, part.stop))
        if begin < end:
            which = self.row_there[begin:end]
            patches[which - part.start] = self._filled(frame, self.corner_yx[which, f], kind)
        return patches

    def _filled(self, frame, corner_yx, kind):
        """Those that stick out: inside as it is, its mean outside, that of the frame where nothing is inside."""
        place = corner_yx[:, None] + torch.arange(self.size, device=frame.device)[:, None]          # (k, size, yx)
        held = torch.minimum(place.clamp(min=0), self.last_yx)
        inside = (held == place).unbind(-1)
        inside = (inside[0][:, :, None] & inside[1][:, None, :]).to(kind)
        values = frame[held[:, :, None, 0], held[:, None, :, 1]].to(kind) * inside
        count = inside.sum((1, 2), keepdim=True)
        mean = values.sum((1, 2), keepdim=True) / count.clamp(min=1)
        if self.some_outside:
            mean = torch.where(count > 0, mean, frame.to(kind).mean())
        return torch.where(inside > 0, values, mean)
