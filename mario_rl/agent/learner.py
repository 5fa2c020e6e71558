"""What every learning algorithm provides.

An update runs in a thread of its own, beside the games. Meanwhile the policy acts with a copy of
the weights from before it, so that what the games do does not depend on when the update is done.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from mario_rl.agent.network import DuelingNetwork
from mario_rl.replay.prioritized import Batch

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Update:
    """What an update brought."""

    slots: np.ndarray  # int64 [B], of its transitions in the replay
    drawn_at: int  # rows that the replay had written when they were drawn
    td_errors: np.ndarray  # float32 [B], target - Q: the new priorities
    metrics: dict[str, float] = field(default_factory=dict)  # "loss", and what else is recorded


@dataclass(frozen=True)
class LearnerState:
    """All that the future of a learner depends on, but its config, on the CPU.

    Only the first is needed to begin with: it then is all four networks.
    """

    online_net: Weights
    target_net: Weights | None = None
    acting_net: Weights | None = None
    average_net: Weights | None = None
    averaged_updates: int = 0
    optimizer: dict[str, Any] | None = None
    update: Update | None = None  # done, and not fetched yet


class Learner(Protocol):
    """Improves a network.

    It is built as `Algorithm(network: DuelingNetwork, config: LearnerConfig)`, with the network on
    the device on which it is to learn.
    """

    device: torch.device
    acting_net: DuelingNetwork  # as it was after the last update that was fetched
    average_net: DuelingNetwork  # what is evaluated and saved as a model

    def set_learning_rate(self, learning_rate: float) -> None:
        """Of the updates that begin from now on. The config's is the first."""

    def begin_update(self, batch: Batch) -> None:
        """Start to learn from a batch. `fetch_update` must come before the next."""

    def fetch_update(self) -> Update | None:
        """Wait for the update that was begun, if any, and let the policy act with its weights."""

    def wait(self) -> None:
        """Wait until the networks stand still. The update stays to be fetched."""

    def sync_target(self) -> None:
        """Renew the target network, when the networks stand still."""

    def begin_state(self) -> "Future[LearnerState]":
        """A copy of the state once the update under way is done. Nobody waits for it."""

    def load_state(self, state: LearnerState) -> None:
        """Take over a state."""
