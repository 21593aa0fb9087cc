"""Ridge regression in closed form."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# torch.linalg has functions without types

import torch
from jaxtyping import Float
from torch import Tensor


def ridge(
    x: Float[Tensor, "rows dim_in"], y: Float[Tensor, "rows dim_out"], penalty: float
) -> tuple[Float[Tensor, "dim_out dim_in"], Float[Tensor, "dim_out"]]:
    """Return W, b that minimise the mean over rows of |y - W x - b|^2, plus penalty |W|^2 (Hoerl and Kennard 1970), fp32.

    W = Y'X (X'X + n penalty I)^-1 with both centred, and b = mean(y) - W mean(x); computed in double precision. In
    expectation, noise of variance s added to every value of x has the same effect as adding s to the penalty.
    """
    x, y = x.double(), y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.mT @ centred + len(x) * penalty * torch.eye(x.shape[1], dtype=x.dtype)
    weight: Tensor = torch.linalg.solve(gram, centred.mT @ (y - mean_y)).mT
    bias: Tensor = mean_y - weight @ mean_x
    return weight.float().contiguous(), bias.float()
