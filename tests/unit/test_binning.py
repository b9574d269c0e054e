"""Images made small against the sums written out."""
import pytest
import torch

from refmotion_plugin.engine.maths.binning import binned_sums


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.uint16, torch.float32])
@pytest.mark.parametrize("factor, shape", [(1, (4, 5)), (2, (9, 12)), (3, (12, 11)), (5, (10, 23))])
def test_sums_over_squares_without_the_incomplete_rim(kind, factor, shape):
    """Largest counts too: they must not wrap round."""
    most = 255 if kind == torch.uint8 else 30000
    image = torch.randint(most - 40, most + 1, shape, generator=torch.Generator().manual_seed(factor)).to(kind)
    small = binned_sums(image, factor)
    assert small.dtype == torch.float32 and small.shape == (shape[0] // factor, shape[1] // factor)
    for y in range(small.shape[0]):
        for x in range(small.shape[1]):
            square = image[y * factor:(y + 1) * factor, x * factor:(x + 1) * factor]
            assert float(small[y, x]) == float(square.double().sum())
