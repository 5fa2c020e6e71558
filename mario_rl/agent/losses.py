"""Losses of the TD errors: functions as `Loss` describes them, named in `registry.LOSSES`."""

from typing import Protocol

import torch
from torch.nn import functional


class Loss(Protocol):
    """A loss of what was predicted against what should have been."""

    def __call__(
        self, quantiles: torch.Tensor, td_target: torch.Tensor, kappa: float
    ) -> torch.Tensor:
        """
        Args:
            quantiles: float32 [B, num_quantiles], predicted; with gradients.
            td_target: float32 [B, num_quantiles].
            kappa: the TD error, > 0, that counts as large: `--reward-scale`.

        Returns:
            loss: float32 [B], of each transition.
        """


def huber(quantiles: torch.Tensor, td_target: torch.Tensor, kappa: float) -> torch.Tensor:
    """The quantile Huber loss; of a single quantile, which is the mean, the Huber loss at 1."""
    if quantiles.shape[1] == 1:
        return functional.huber_loss(quantiles, td_target, reduction="none").squeeze(1)
    return quantile_huber(quantiles, td_target, kappa)


def quantile_huber(quantiles: torch.Tensor, td_target: torch.Tensor, kappa: float) -> torch.Tensor:
    """|tau_i - 1{u < 0}| * huber(u) / kappa, with u = td_target_j - quantile_i, of each quantile i,
    of level tau_i, and each target j; its mean over j and sum over i (Dabney et al. 2018, equation
    10). The Huber loss is a parabola up to kappa, and a line beyond.
    """
    num_quantiles = quantiles.shape[1]
    tau = (torch.arange(num_quantiles, device=quantiles.device) + 0.5) / num_quantiles
    ours = quantiles[:, :, None].expand(-1, -1, num_quantiles)
    targets = td_target[:, None, :].expand(-1, num_quantiles, -1)
    error = functional.smooth_l1_loss(ours, targets, reduction="none", beta=kappa)  # [B, i, j]
    weights = (tau[:, None] - (targets < ours).float()).abs()
    return (weights * error).mean(dim=2).sum(dim=1)
