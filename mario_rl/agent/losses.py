"""Losses of the TD errors. `registry.LOSSES` names them."""

from typing import Protocol

import torch
from torch.nn import functional


class Loss(Protocol):
    """Measures how far predicted quantiles are from their targets."""

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
    """The quantile Huber loss. For a single quantile, the mean: the Huber loss with kappa = 1."""
    if quantiles.shape[1] == 1:
        return functional.huber_loss(quantiles, td_target, reduction="none").squeeze(1)
    return quantile_huber(quantiles, td_target, kappa)


def quantile_huber(quantiles: torch.Tensor, td_target: torch.Tensor, kappa: float) -> torch.Tensor:
    """The sum over quantiles i, with level tau_i, of the mean over targets j of
    |tau_i - 1{u < 0}| * huber(u) / kappa, with u = td_target_j - quantile_i (Dabney et al. 2018,
    equation 10). The Huber loss is quadratic up to kappa, and linear beyond.
    """
    num_quantiles = quantiles.shape[1]
    tau = (torch.arange(num_quantiles, device=quantiles.device) + 0.5) / num_quantiles
    ours = quantiles[:, :, None].expand(-1, -1, num_quantiles)
    targets = td_target[:, None, :].expand(-1, num_quantiles, -1)
    error = functional.smooth_l1_loss(ours, targets, reduction="none", beta=kappa)  # [B, i, j]
    weights = (tau[:, None] - (targets < ours).float()).abs()
    return (weights * error).mean(dim=2).sum(dim=1)
