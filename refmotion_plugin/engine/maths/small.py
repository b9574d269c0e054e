"""Linear algebra of a few small matrices, which a GPU takes apart by hundreds of kernels each: the host is many times faster."""
import torch


def eigh_of_few(matrices):
    """Eigenvalues (b, n), ascending, and eigenvectors (b, n, n) of symmetric matrices (b, n, n), on their device. Waits for a GPU once."""
    values, vectors = torch.linalg.eigh(matrices.cpu())
    return values.to(matrices.device, non_blocking=True), vectors.to(matrices.device, non_blocking=True)
