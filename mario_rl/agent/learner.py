"""What every learning algorithm provides.

An update runs in its own thread, beside the games. Meanwhile the policy acts with a copy of the
weights from before the update, so the games do not depend on when it is done.
"""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import numpy as np
import torch

from mario_rl.agent.network import DuelingNetwork, Weights, build_network
from mario_rl.config import Config
from mario_rl.errors import first_line
from mario_rl.fields import AnyFloat, Array, ColumnName, Count
from mario_rl.registry import LEARNERS
from mario_rl.replay.prioritized import Batch
from mario_rl.storage.records import check_metrics

MAX_TD_ERROR = 3.4e38  # of float32; the priorities are sums of such numbers


@dataclass(frozen=True)
class Update:
    """The result of an update."""

    slots: Annotated[np.ndarray, Array("int64", "batch", "[0, slots)")]  # in the replay
    drawn_at: Count  # rows that the replay had written when they were drawn
    # target - Q: the new priorities
    td_errors: Annotated[
        np.ndarray, Array("float32 float64", "batch", f"[-{MAX_TD_ERROR}, {MAX_TD_ERROR}]")
    ]
    metrics: dict[ColumnName, AnyFloat] = field(default_factory=dict)  # "loss", others to record

    def check(self) -> None:
        """
        Raises:
            ValueError: names the field that the trainer cannot use.
        """
        if len(self.slots) == 0:
            raise ValueError("slots is empty")
        check_metrics(self.metrics)


@dataclass(frozen=True)
class LearnerState:
    """Everything that the future of a learner depends on except its config, on the CPU.

    A new run needs only `online_net`: all four networks begin with it.
    """

    online_net: Weights
    target_net: Weights | None = None
    acting_net: Weights | None = None
    average_net: Weights | None = None
    averaged_updates: Count = 0
    optimizer: dict[str, Any] | None = None  # the learner's own
    update: Update | None = None  # done, and not fetched yet


class Learner(Protocol):
    """Improves a network.

    It is built as `Algorithm(network: DuelingNetwork, config: LearnerConfig)`. The device of the
    network is the device of the learner.
    """

    device: torch.device
    acting_net: DuelingNetwork  # as it was after the last update that was fetched
    average_net: DuelingNetwork  # what is evaluated and saved as a model

    def set_threads(self, threads: int) -> None:
        """Let updates compute with this many threads of PyTorch; only a CPU needs them."""

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
        """Take over a state.

        Raises:
            ValueError: names the field that does not fit. The state may come from anywhere; its
                types are right, as `LearnerState` declares them.
        """

    def close(self) -> None:
        """End its thread, once no update is running."""


def check_learner(config: Config, state: LearnerState) -> None:
    """Find out whether a learner of this config takes over the state.

    Raises:
        ValueError: names the field that does not fit.
    """
    algorithm = LEARNERS.get(config.learner.learner)
    learner: Learner = algorithm(build_network(config), config.learner)
    if state.update is not None:
        try:
            state.update.check()
        except ValueError as error:
            raise ValueError(f"update.{error}") from None
    try:
        learner.load_state(state)
    except Exception as error:  # what a learner raises is its own affair
        raise ValueError(first_line(error)) from None
