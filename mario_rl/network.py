"""The dueling network (Wang et al. 2016) on the convolutions of Mnih et al. 2015."""

import torch
from torch import nn

from mario_rl.config import STACK


class DuelingNetwork(nn.Module):
    """Q(s, a) = V(s) + A(s, a) - mean over a' of A(s, a') (Wang et al. 2016, equation 9)."""

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(STACK, 32, kernel_size=8, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=4, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.value = _head(1)
        self.advantage = _head(num_actions)
        # Channels last is 1.2 to 1.4 times faster on CPUs, and what tensor cores want.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """
        Args:
            obs: uint8 [B, 4, 84, 84], 0-255, oldest frame first.

        Returns:
            q_values: float32 [B, num_actions].
        """
        features = self.trunk(obs.to(torch.float32) / 255)
        value, advantage = self.value(features), self.advantage(features)
        return value + advantage - advantage.mean(dim=1, keepdim=True)


def _head(outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, outputs))
