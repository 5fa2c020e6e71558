"""Q-values of pixels: dueling heads (Wang et al. 2016) on convolutions as in Mnih et al. 2015.

For each action the network predicts quantiles of the return (Dabney et al. 2018), not one number;
their mean is the Q-value.
"""

from typing import Annotated

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mario_rl.config import STACK, Config
from mario_rl.fields import Array
from mario_rl.games.actions import action_names

# Of a network, by name. Shipped models have half precision.
Weights = dict[str, Annotated[torch.Tensor, Array("float32 float16")]]


class DuelingNetwork(nn.Module):
    """Q(s, a) = V(s) + A(s, a) - mean over a' of A(s, a') (Wang et al. 2016, equation 9), in each
    quantile."""

    def __init__(
        self,
        num_actions: int,
        trunk_dtype: torch.dtype = torch.float32,
        width: float = 1.0,
        num_quantiles: int = 1,
        frame_size: int = 84,
    ) -> None:
        """
        Args:
            width: multiplies the numbers of channels and units.
            trunk_dtype: precision of all layers but the last. That, like the weights, stays
                float32: bfloat16 would round a Q of 50 to steps of 0.25, which is coarser than the
                advantages.
            num_quantiles: quantile i of K, i = 0 to K - 1, has the level (i + 0.5) / K.
            frame_size: a multiple of 21. The first convolution looks at 20x20 places whatever it
                is, each two 21sts of the picture wide.
        """
        super().__init__()
        self.num_actions = num_actions
        self._trunk_dtype = trunk_dtype
        self._stride = frame_size // 21
        first, second, hidden = (max(1, round(width * number)) for number in (32, 64, 512))
        self.trunk = nn.Sequential(
            nn.Conv2d(STACK, first, kernel_size=2 * self._stride, stride=self._stride),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, kernel_size=4, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, second, kernel_size=3, stride=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )
        self.value = _head(second * 7 * 7, hidden, num_quantiles)
        self.advantage = _head(second * 7 * 7, hidden, num_actions * num_quantiles)
        # Channels last is faster on CPUs, and what tensor cores want.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def pixels(self, obs: torch.Tensor) -> torch.Tensor:
        """Observations in the precision of the trunk, in which a pixel is exact; `forward` takes
        them as well."""
        return obs.to(self._trunk_dtype, memory_format=torch.channels_last)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """
        Args:
            obs: uint8 [B, 4, H, W], 0-255, oldest frame first; fastest in channels-last memory.

        Returns:
            quantiles: float32 [B, num_actions, num_quantiles].
        """
        weight, bias = self.trunk[0].parameters()
        with torch.autocast(
            obs.device.type,
            self._trunk_dtype,
            enabled=self._trunk_dtype != torch.float32,
            cache_enabled=False,  # older versions of PyTorch share it among threads
        ):
            # Dividing the weights by 255 instead of the pixels saves a pass over the batch.
            features = functional.conv2d(self.pixels(obs), weight / 255, bias, stride=self._stride)
            features = self.trunk[1:](features)
            of_value, of_advantage = self.value[:2](features), self.advantage[:2](features)
        value = self.value[2](of_value.float())
        advantage = self.advantage[2](of_advantage.float()).unflatten(1, (-1, value.shape[1]))
        return value[:, None] + advantage - advantage.mean(dim=1, keepdim=True)

    @torch.inference_mode()
    def q_values(self, obs: np.ndarray | torch.Tensor) -> np.ndarray:
        """float32 [B, num_actions] for obs, uint8 [B, 4, H, W]."""
        device = next(self.parameters()).device
        q_values: np.ndarray = self(to_tensor(obs, device)).mean(dim=2).cpu().numpy()
        return q_values


def build_network(config: Config, trunk_dtype: torch.dtype = torch.float32) -> DuelingNetwork:
    """A network as the config describes it, with random weights, on the CPU."""
    return DuelingNetwork(
        len(action_names(config.env.action_set)),
        trunk_dtype,
        config.learner.network_width,
        config.learner.num_quantiles,
        config.env.frame_size,
    )


def load_weights(network: DuelingNetwork, weights: Weights, where: str) -> None:
    """Take over weights.

    Args:
        where: the name of their field.

    Raises:
        ValueError: names a tensor that does not fit the network.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in sorted(weights.keys() ^ expected.keys()):
        raise ValueError(f"{where}.{name:.80} is {'missing' if name in expected else 'unknown'}")
    for name, shape in expected.items():
        if (found := tuple(weights[name].shape)) != shape:
            raise ValueError(f"{where}.{name} has the shape {found}, and must have {shape}")
    network.load_state_dict(weights)


def to_tensor(obs: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Observations, uint8 [B, 4, H, W], as a tensor in channels-last memory."""
    if isinstance(obs, torch.Tensor):
        return obs.to(device).contiguous(memory_format=torch.channels_last)
    # OpenCV interleaves the frames ten times faster than a strided copy does.
    planes = obs.swapaxes(0, 1).reshape(STACK, len(obs), -1)
    pixels = cv2.merge(list(planes)).reshape(len(obs), *obs.shape[2:], STACK)
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
    )
