"""What every learning algorithm provides.

An update runs in its own thread, beside the games. Meanwhile the policy acts with a copy of the
weights from before the update, so the games do not depend on when it is done.
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
    """The result of an update."""

    slots: np.ndarray  # int64 [B], of its transitions in the replay
    drawn_at: int  # rows that the replay had written when they were drawn
    td_errors: np.ndarray  # float32 [B], target - Q: the new priorities
    metrics: dict[str, float] = field(default_factory=dict)  # "loss", and others to record


@dataclass(frozen=True)
class LearnerState:
    """Everything that the future of a learner depends on except its config, on the CPU.

    A new run needs only `online_net`: all four networks begin with it.
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

    It is built as `Algorithm(network: DuelingNetwork, config: LearnerConfig)`. The device of the
    network is the device of the learner.
    """

    device: torch.device
    acting_net: DuelingNetwork  # as it was after the last update that was fetched
    average_net: DuelingNetwork  # what is evaluated and saved as a model

    def set_learning_rate(self, learning_rate: float) -> None:
        """Set that of the updates that begin from now on. The first is that of the config."""

    def begin_update(self, batch: Batch) -> None:
        """Start to learn from a batch. Call `fetch_update` before the next."""

    def fetch_update(self) -> Update | None:
        """Wait for the update that was begun, if any, and let the policy act with its weights."""

    def wait(self) -> None:
        """Wait until no update is running. Its result can still be fetched."""

    def sync_target(self) -> None:
        """Update the target network, once no update is running."""

    def begin_state(self) -> "Future[LearnerState]":
        """Begin to copy the state, as it is after the running update. Does not wait."""

    def load_state(self, state: LearnerState) -> None:
        """Take over a state."""
