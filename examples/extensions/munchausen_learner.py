"""A learner: Munchausen DQN (Vieillard et al. 2020) as another target for the default learner."""

import torch

from mario_rl.agent.dqn import DQN, TensorBatch
from mario_rl.agent.network import DuelingNetwork
from mario_rl.config import LearnerConfig

TEMPERATURE = 0.03  # tau
MUNCHAUSEN = 0.9  # alpha
LOWEST_LOG_POLICY = -1.0  # l0


def munchausen_target(
    batch: TensorBatch, online_net: DuelingNetwork, target_net: DuelingNetwork
) -> torch.Tensor:
    """R + alpha * max(tau log pi(a|s), l0) + discount * sum over a' of pi(a'|s') (Z(s', a') - tau
    log pi(a'|s')), with pi = softmax(Q_target / tau); float32 [B, num_quantiles]."""
    q_values = target_net(batch.obs).mean(dim=2)
    log_policy = TEMPERATURE * torch.log_softmax(q_values / TEMPERATURE, dim=1)
    taken = log_policy.gather(1, batch.actions[:, None]).clamp(min=LOWEST_LOG_POLICY)

    next_quantiles = target_net(batch.next_obs)
    next_log_policy = torch.log_softmax(next_quantiles.mean(dim=2) / TEMPERATURE, dim=1)
    next_value = next_quantiles - TEMPERATURE * next_log_policy[:, :, None]
    soft_value = (next_log_policy.exp()[:, :, None] * next_value).sum(dim=1)
    bonus = MUNCHAUSEN * taken
    return batch.returns[:, None] + bonus + batch.discounts[:, None] * soft_value


def munchausen_dqn(network: DuelingNetwork, config: LearnerConfig) -> DQN:
    return DQN(network, config, td_target=munchausen_target)
