"""The update of the network: double Q-learning on n-step returns with a weighted quantile loss.

Double DQN (van Hasselt et al. 2016), n-step targets and prioritized weights combined as in Rainbow
(Hessel et al. 2018), gradients clipped to a norm as in the dueling paper (Wang et al. 2016). What
is learned is the distribution of the return, by its quantiles (QR-DQN, Dabney et al. 2018).

An update runs in a thread of its own, beside the games. Meanwhile the policy acts with a copy of
the weights from before it, so that what the games do does not depend on when the update is done.
"""

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from mario_rl.agent.network import DuelingNetwork, to_tensor
from mario_rl.config import LearnerConfig
from mario_rl.replay.prioritized import Batch

_AVERAGE_POWER = 7  # an average of the weights reaches back over an eighth of the updates


class UpdateResult(NamedTuple):
    td_errors: np.ndarray  # float32 [B], target - Q
    loss: float
    q_value: float  # mean Q of the batch's actions
    grad_norm: float  # before clipping


def double_dqn_target(
    returns: torch.Tensor,
    discounts: torch.Tensor,
    next_online: torch.Tensor,
    next_target: torch.Tensor,
) -> torch.Tensor:
    """td_target = R + discount * Z_target(s', argmax over a of Q_online(s', a)), where Z are the
    quantiles and Q their mean.

    Args:
        returns, discounts: float32 [B].
        next_online, next_target: float32 [B, num_actions, num_quantiles].

    Returns:
        td_target: float32 [B, num_quantiles].
    """
    next_quantiles = _of_actions(next_target, next_online.mean(dim=2).argmax(dim=1))
    return returns[:, None] + discounts[:, None] * next_quantiles


def quantile_huber_loss(
    quantiles: torch.Tensor, td_target: torch.Tensor, kappa: float
) -> torch.Tensor:
    """|tau_i - 1{u < 0}| * huber(u) / kappa, with u = td_target_j - quantile_i, of each quantile i,
    of level tau_i, and each target j; its mean over j and sum over i (Dabney et al. 2018, equation
    10).

    Args:
        quantiles, td_target: float32 [B, num_quantiles].
        kappa: where the Huber loss goes over from a parabola to a line.

    Returns:
        loss: float32 [B].
    """
    num_quantiles = quantiles.shape[1]
    tau = (torch.arange(num_quantiles, device=quantiles.device) + 0.5) / num_quantiles
    ours = quantiles[:, :, None].expand(-1, -1, num_quantiles)
    targets = td_target[:, None, :].expand(-1, num_quantiles, -1)
    huber = functional.smooth_l1_loss(ours, targets, reduction="none", beta=kappa)  # [B, i, j]
    weights = (tau[:, None] - (targets < ours).float()).abs()
    return (weights * huber).mean(dim=2).sum(dim=1)


def _of_actions(quantiles: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """[B, num_quantiles], those of the actions, int64 [B]."""
    return quantiles[torch.arange(len(actions), device=actions.device), actions]


class Learner:
    """Holds the networks and improves the online network.

    `acting_net` is the online network as it was after the last update whose result was fetched.
    `average_net` is what is evaluated and saved as a model: the average of the online network's
    weights after each update n, in proportion to n (n + 1) ... (n + 6), so about the mean over the
    last eighth of all updates (polynomial-decay averaging, Shamir & Zhang 2013). Updates move many
    decisions that are nearly ties; an average does not follow them.
    """

    def __init__(
        self,
        config: LearnerConfig,
        num_actions: int,
        device: torch.device,
        seed: int,
        trunk_dtype: torch.dtype = torch.float32,
    ) -> None:
        torch.manual_seed(seed)
        self.device = device
        self._max_grad_norm = config.max_grad_norm
        self._kappa = config.reward_scale
        self.online_net = DuelingNetwork(
            num_actions, trunk_dtype, config.network_width, config.num_quantiles
        ).to(device)
        self.target_net = copy.deepcopy(self.online_net).requires_grad_(False)
        self.acting_net = copy.deepcopy(self.target_net)
        self.average_net = copy.deepcopy(self.target_net)
        self._averaged_updates = 0
        self._optimizer = torch.optim.Adam(
            self.online_net.parameters(), lr=config.learning_rate, fused=True
        )
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._update: Future[UpdateResult] | None = None

    def set_learning_rate(self, learning_rate: float) -> None:
        """Of the updates that begin from now on. The config's is what it is at first."""
        assert self._update is None
        self._optimizer.param_groups[0]["lr"] = learning_rate

    def begin_update(self, batch: Batch) -> None:
        """Start one step of gradient descent on the batch; `fetch_result` must come before the
        next."""
        assert self._update is None
        self._update = self._thread.submit(self.update, batch)

    def fetch_result(self) -> UpdateResult | None:
        """Wait for the update that was begun, if any, and let the policy act with its weights."""
        if self._update is None:
            return None
        result = self._update.result()
        self._update = None
        _copy_weights(self.online_net, self.acting_net)
        return result

    def wait(self) -> None:
        """Wait until the networks stand still. A result stays to be fetched."""
        if self._update is not None:
            self._update.result()

    def update(self, batch: Batch) -> UpdateResult:
        """One step of gradient descent on the batch."""
        obs, next_obs = (to_tensor(array, self.device) for array in (batch.obs, batch.next_obs))
        returns, discounts, is_weights = (
            torch.from_numpy(array).to(self.device)
            for array in (batch.returns, batch.discounts, batch.is_weights)
        )
        actions = torch.from_numpy(batch.actions).to(self.device, torch.int64)
        with torch.no_grad():
            td_target = double_dqn_target(
                returns, discounts, self.online_net(next_obs), self.target_net(next_obs)
            )
        quantiles = _of_actions(self.online_net(obs), actions)
        loss = (is_weights * self._loss(quantiles, td_target)).mean()

        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        grad_norm = torch.nn.utils.clip_grad_norm_(
            self.online_net.parameters(), self._max_grad_norm
        )
        self._optimizer.step()
        self._average()
        td_errors = (td_target - quantiles.detach()).mean(dim=1)
        return UpdateResult(
            td_errors=td_errors.cpu().numpy(),
            loss=loss.item(),
            q_value=quantiles.mean().item(),
            grad_norm=grad_norm.item(),
        )

    def _loss(self, quantiles: torch.Tensor, td_target: torch.Tensor) -> torch.Tensor:
        """float32 [B]; where there is but one number for each action, that of the mean."""
        if quantiles.shape[1] == 1:
            return functional.huber_loss(quantiles, td_target, reduction="none").squeeze(1)
        return quantile_huber_loss(quantiles, td_target, self._kappa)

    @torch.no_grad()
    def _average(self) -> None:
        self._averaged_updates += 1
        share = (_AVERAGE_POWER + 1) / (_AVERAGE_POWER + self._averaged_updates)
        networks = self.average_net.parameters(), self.online_net.parameters()
        for average, weight in zip(*networks, strict=True):
            average.lerp_(weight, share)

    def sync_target(self) -> None:
        """Copy the online network, when it stands still, into the target network."""
        self.wait()
        _copy_weights(self.online_net, self.target_net)

    def begin_state_dict(self) -> "Future[dict[str, Any]]":
        """A copy, in main memory, of the networks, the optimizer and the result to be fetched, as
        they are once the update that is under way is done. Nobody waits for it."""
        copied = {
            "target_net": _copy_to_cpu(self.target_net.state_dict()),
            "acting_net": _copy_to_cpu(self.acting_net.state_dict()),
        }
        update = self._update

        def copy_the_rest() -> dict[str, Any]:
            result = None
            if update is not None:
                result = update.result()._asdict()
                result["td_errors"] = torch.from_numpy(result["td_errors"])
            return {
                **copied,
                "online_net": _copy_to_cpu(self.online_net.state_dict()),
                "average_net": _copy_to_cpu(self.average_net.state_dict()),
                "averaged_updates": self._averaged_updates,
                "optimizer": _copy_to_cpu(self._optimizer.state_dict()),
                "result": result,
            }

        return self._thread.submit(copy_the_rest)

    def state_dict(self) -> dict[str, Any]:
        """The same, waited for."""
        return self.begin_state_dict().result()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over networks, optimizer and result.

        Only `state["online_net"]` must be there: it then is all four networks, and the optimizer
        stays as it is.
        """
        self.online_net.load_state_dict(state["online_net"])
        self.target_net.load_state_dict(state.get("target_net", state["online_net"]))
        self.acting_net.load_state_dict(state.get("acting_net", state["online_net"]))
        self.average_net.load_state_dict(state.get("average_net", state["online_net"]))
        self._averaged_updates = state.get("averaged_updates", 0)
        if state.get("optimizer") is not None:
            self._optimizer.load_state_dict(state["optimizer"])
        if state.get("result") is not None:
            result = {**state["result"], "td_errors": state["result"]["td_errors"].numpy()}
            self._update = Future()
            self._update.set_result(UpdateResult(**result))


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
