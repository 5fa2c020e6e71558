"""The default learner: Q-learning on n-step returns with a weighted quantile loss.

What is learned is the distribution of the return, by its quantiles (QR-DQN, Dabney et al. 2018).
n-step targets and prioritized weights are combined as in Rainbow (Hessel et al. 2018), gradients
clipped to a norm as in the dueling paper (Wang et al. 2016); double Q-learning (van Hasselt et al.
2016) is an option. Deviation: the policy that is evaluated and saved has an average of the weights
(see `DQN`).
"""

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from mario_rl.agent.adam_state import adam_state, load_adam_state
from mario_rl.agent.cuda_graph import CudaGraph
from mario_rl.agent.learner import LearnerState, Update
from mario_rl.agent.network import DuelingNetwork, load_weights, to_tensor
from mario_rl.config import LearnerConfig
from mario_rl.device import use_threads
from mario_rl.registry import LOSSES
from mario_rl.replay.prioritized import Batch

_AVERAGE_POWER = 7  # the average of the weights reaches back over an eighth of the updates


class TensorBatch(NamedTuple):
    """A batch on the learner's device."""

    obs: torch.Tensor  # uint8 [B, 4, H, W]
    actions: torch.Tensor  # int64 [B]
    returns: torch.Tensor  # float32 [B], sum of up to n discounted rewards
    discounts: torch.Tensor  # float32 [B], of the value of `next_obs`; 0 at a terminal state
    next_obs: torch.Tensor  # uint8 [B, 4, H, W]
    is_weights: torch.Tensor  # float32 [B]


class _Step(NamedTuple):
    """What an update computes besides the new weights, on the learner's device."""

    td_errors: torch.Tensor  # float32 [B]
    loss: torch.Tensor  # float32 [], as the others
    q_value: torch.Tensor  # the mean of the batch
    grad_norm: torch.Tensor  # before clipping


# (batch, online network, target network) -> td_target, float32 [B, num_quantiles]
TDTarget = Callable[[TensorBatch, DuelingNetwork, DuelingNetwork], torch.Tensor]


def q_target(
    batch: TensorBatch, online_net: DuelingNetwork, target_net: DuelingNetwork
) -> torch.Tensor:
    """td_target = R + discount * Z_target(s', argmax over a of Q_target(s', a)), where Z are the
    quantiles and Q their mean, float32 [B, num_quantiles]."""
    quantiles = target_net(batch.next_obs)
    return _td_target(batch, quantiles, quantiles)


def double_q_target(
    batch: TensorBatch, online_net: DuelingNetwork, target_net: DuelingNetwork
) -> torch.Tensor:
    """As `q_target`, but with the argmax over a of Q_online(s', a)."""
    return _td_target(batch, online_net(batch.next_obs), target_net(batch.next_obs))


def _td_target(
    batch: TensorBatch, chosen_by: torch.Tensor, quantiles: torch.Tensor
) -> torch.Tensor:
    next_quantiles = of_actions(quantiles, chosen_by.mean(dim=2).argmax(dim=1))
    return batch.returns[:, None] + batch.discounts[:, None] * next_quantiles


def of_actions(quantiles: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """The quantiles [B, num_quantiles] of actions, int64 [B], from those of all actions."""
    return quantiles[torch.arange(len(actions), device=actions.device), actions]


class DQN:
    """The `Learner`.

    `average_net` is an average of the online network's weights. Those after update n count in
    proportion to n (n + 1) ... (n + 6), so it is about the mean over the last eighth of all updates
    (polynomial-decay averaging, Shamir & Zhang 2013). A single update changes many decisions that
    are nearly ties; the average changes few.
    """

    def __init__(
        self,
        network: DuelingNetwork,
        config: LearnerConfig,
        td_target: TDTarget | None = None,
        captured: bool = False,
    ) -> None:
        """
        Args:
            td_target: None is `q_target` or `double_q_target`, as `config.double_q` says.
            captured: compute updates by a CUDA graph. `make gpu-check` measures what that saves.
        """
        self.device = next(network.parameters()).device
        self._max_grad_norm = config.max_grad_norm
        self._kappa = config.reward_scale
        self._loss = LOSSES.get(config.loss)
        self._td_target = td_target or (double_q_target if config.double_q else q_target)
        self.online_net = network
        self.target_net = copy.deepcopy(network).requires_grad_(False)
        self.acting_net = copy.deepcopy(self.target_net)
        self.average_net = copy.deepcopy(self.target_net)
        self._averaged_updates = 0
        self._average_share = torch.zeros((), device=self.device)
        self._captured = captured
        self._step = self._new_step()
        rate = config.learning_rate
        self._optimizer = torch.optim.Adam(
            self.online_net.parameters(),
            lr=torch.tensor(rate, device=self.device) if captured else rate,
            fused=True,
            capturable=captured,
        )
        self._thread = ThreadPoolExecutor(max_workers=1)
        # On a CPU the target is computed beside the Q-values. That keeps a second core busy with
        # less waiting than more threads for every operation.
        self._target_thread = ThreadPoolExecutor(max_workers=1)
        self._under_way: Future[Update] | None = None

    def set_threads(self, threads: int) -> None:
        for thread in (self._thread, self._target_thread):
            thread.submit(use_threads, threads).result()

    def set_learning_rate(self, learning_rate: float) -> None:
        assert self._under_way is None
        group = self._optimizer.param_groups[0]
        if self._captured:
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate

    def begin_update(self, batch: Batch) -> None:
        assert self._under_way is None
        self._under_way = self._thread.submit(self.update, batch)

    def fetch_update(self) -> Update | None:
        if self._under_way is None:
            return None
        update = self._under_way.result()
        self._under_way = None
        _copy_weights(self.online_net, self.acting_net)
        return update

    def wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def update(self, batch: Batch) -> Update:
        """One step of gradient descent on the batch."""
        self._averaged_updates += 1
        self._average_share.fill_((_AVERAGE_POWER + 1) / (_AVERAGE_POWER + self._averaged_updates))
        step = self._step(self._tensors(batch))
        td_errors = step.td_errors.to("cpu", copy=True).numpy()  # a graph reuses its own
        return Update(
            batch.slots,
            batch.drawn_at,
            td_errors,
            metrics={
                "loss": step.loss.item(),
                "td_error": float(abs(td_errors).mean()),
                "q_value": step.q_value.item(),
                "grad_norm": step.grad_norm.item(),
            },
        )

    def _new_step(self) -> Callable[[TensorBatch], _Step]:
        return CudaGraph(self._descend, self.device) if self._captured else self._descend

    def _descend(self, batch: TensorBatch) -> _Step:
        """The update itself, without waiting for the device. A graph repeats it with other values
        in the same tensors: what changes from update to update must be in one."""
        beside = self.device.type == "cpu" and not self._captured
        target = self._target_thread.submit(self._target_of, batch) if beside else None
        quantiles = of_actions(self.online_net(batch.obs), batch.actions)
        td_target = target.result() if target else self._target_of(batch)
        loss = (batch.is_weights * self._loss(quantiles, td_target, self._kappa)).mean()

        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        grad_norm = torch.nn.utils.clip_grad_norm_(
            self.online_net.parameters(), self._max_grad_norm
        )
        self._optimizer.step()
        self._average()
        quantiles = quantiles.detach()
        td_errors = (td_target - quantiles).mean(dim=1)
        return _Step(td_errors, loss.detach(), quantiles.mean(), grad_norm)

    @torch.no_grad()
    def _target_of(self, batch: TensorBatch) -> torch.Tensor:
        # With double Q-learning two networks look at these: convert them once.
        batch = batch._replace(next_obs=self.online_net.pixels(batch.next_obs))
        return self._td_target(batch, self.online_net, self.target_net)

    def _tensors(self, batch: Batch) -> TensorBatch:
        returns, discounts, is_weights = (
            torch.from_numpy(array).to(self.device)
            for array in (batch.returns, batch.discounts, batch.is_weights)
        )
        return TensorBatch(
            obs=to_tensor(batch.obs, self.device),
            actions=torch.from_numpy(batch.actions).to(self.device, torch.int64),
            returns=returns,
            discounts=discounts,
            next_obs=to_tensor(batch.next_obs, self.device),
            is_weights=is_weights,
        )

    @torch.no_grad()
    def _average(self) -> None:
        networks = self.average_net.parameters(), self.online_net.parameters()
        for average, weight in zip(*networks, strict=True):
            average.lerp_(weight, self._average_share)

    def sync_target(self) -> None:
        self.wait()
        _copy_weights(self.online_net, self.target_net)

    def begin_state(self) -> "Future[LearnerState]":
        target_net = _copy_to_cpu(self.target_net.state_dict())
        acting_net = _copy_to_cpu(self.acting_net.state_dict())
        under_way = self._under_way

        def copy_the_rest() -> LearnerState:
            return LearnerState(
                online_net=_copy_to_cpu(self.online_net.state_dict()),
                target_net=target_net,
                acting_net=acting_net,
                average_net=_copy_to_cpu(self.average_net.state_dict()),
                averaged_updates=self._averaged_updates,
                optimizer=_copy_to_cpu(adam_state(self._optimizer)),
                update=under_way.result() if under_way is not None else None,
            )

        return self._thread.submit(copy_the_rest)  # after the update under way

    def close(self) -> None:
        self._thread.shutdown()
        self._target_thread.shutdown()

    def load_state(self, state: LearnerState) -> None:
        for name in ("online_net", "target_net", "acting_net", "average_net"):
            load_weights(getattr(self, name), getattr(state, name) or state.online_net, name)
        self._averaged_updates = state.averaged_updates
        if state.optimizer is not None:
            load_adam_state(self._optimizer, state.optimizer, "optimizer")
        self._step = self._new_step()  # a graph would go on with the old moments
        if state.update is not None:
            self._under_way = Future()
            self._under_way.set_result(state.update)


@torch.no_grad()
def _copy_weights(source: DuelingNetwork, target: DuelingNetwork) -> None:
    for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
        ours.copy_(theirs)


def _copy_to_cpu(value: Any) -> Any:
    """Nested dictionaries and lists with copies of their tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy_to_cpu(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy_to_cpu(item) for item in value]
    return value
