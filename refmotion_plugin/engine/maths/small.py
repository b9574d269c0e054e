"""Linear algebra of a few small matrices, which a GPU takes apart by hundreds of kernels each: the host is many times faster."""
import numpy as np
import torch


def eigh_of_few(matrices):
    """Eigenvalues (b, n), ascending, and eigenvectors (b, n, n) of symmetric matrices (b, n, n), on their device. Waits for a GPU once.

    For a GPU by numpy, which works in the calling thread: torch would call a thread on every core, where movies are decoded.
    """
    if matrices.device.type == "cpu":
        return torch.linalg.eigh(matrices)
    found = np.linalg.eigh(matrices.cpu().numpy())
    return tuple(torch.from_numpy(part).to(matrices.device, non_blocking=True) for part in found)
