"""The network and its update: double Q-learning targets, weights, clipping and state."""

import copy
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mario_rl.agent.dqn import DQN, TDTarget, TensorBatch, double_q_target, q_target
from mario_rl.agent.learner import LearnerState
from mario_rl.agent.losses import quantile_huber
from mario_rl.agent.network import DuelingNetwork
from mario_rl.config import STACK, Config, LearnerConfig
from mario_rl.replay.prioritized import Batch
from mario_rl.storage.plain import from_plain
from mario_rl.storage.tensor_file import load_tensors, save_tensors
from mario_rl.training.assembly import build_learner

NUM_ACTIONS = 5
FRAME_SHAPE = Config().env.frame_shape
CPU = torch.device("cpu")


def make_learner(seed: int = 0, dtype: torch.dtype = torch.float32, **settings: float) -> DQN:
    config = Config().replaced({"action_set": "right", "seed": seed, **settings})
    return build_learner(config, CPU, dtype)


def make_batch(size: int = 4, seed: int = 0, **columns: np.ndarray) -> Batch:
    rng = np.random.default_rng(seed)
    shape = (size, STACK, *FRAME_SHAPE)
    batch = Batch(
        slots=np.arange(size),
        drawn_at=size,
        obs=rng.integers(256, size=shape, dtype=np.uint8),
        actions=rng.integers(NUM_ACTIONS, size=size, dtype=np.uint8),
        returns=rng.normal(size=size).astype(np.float32),
        discounts=rng.choice(np.array([0.0, 0.729], dtype=np.float32), size=size),
        next_obs=rng.integers(256, size=shape, dtype=np.uint8),
        is_weights=rng.uniform(0.2, 1, size=size).astype(np.float32),
    )
    return batch._replace(**columns)


def weights_of(learner: DQN) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learner.online_net.parameters()])


def gradient_of(learner: DQN) -> torch.Tensor:
    """What the last update went by, after clipping."""
    return torch.cat([p.grad.flatten().double() for p in learner.online_net.parameters()])


def saved(learner: DQN, tmp_path: Path) -> LearnerState:
    """The state as it comes back from a file."""
    save_tensors(tmp_path / "state.pt", "learner", asdict(learner.begin_state().result()))
    content = load_tensors(tmp_path / "state.pt", "learner")
    del content["schema"], content["kind"]
    return from_plain(LearnerState, content)


def target_by_hand(learner: DQN, batch: Batch, double_q: bool) -> np.ndarray:
    """One number at a time."""
    chosen_by = learner.online_net if double_q else learner.target_net
    q_values = chosen_by.q_values(batch.next_obs)
    target = quantiles_of(learner.target_net, batch.next_obs)
    return np.array(
        [
            batch.returns[i] + batch.discounts[i] * target[i, int(np.argmax(q_values[i]))]
            for i in range(len(batch.returns))
        ]
    )


def quantiles_of(network: DuelingNetwork, obs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(obs)).numpy()


def loss_by_hand(quantiles: np.ndarray, target: np.ndarray, kappa: float) -> float:
    """Equation 10 of Dabney et al. 2018, one pair at a time."""
    loss = 0.0
    for i, quantile in enumerate(quantiles.tolist()):
        for other in target.tolist():
            error = other - quantile
            size = abs(error)
            huber = error**2 / 2 if size <= kappa else kappa * (size - kappa / 2)
            loss += abs((i + 0.5) / len(quantiles) - (error < 0)) * huber / kappa / len(target)
    return loss


# the target


def target_of(td_target: TDTarget, returns, discounts, next_online, next_target) -> torch.Tensor:
    """With networks that say the same of every observation."""
    zeros = torch.zeros(len(returns))
    batch = TensorBatch(zeros, zeros, returns, discounts, zeros, zeros)
    return td_target(batch, lambda obs: next_online, lambda obs: next_target)


@pytest.mark.parametrize(
    ("td_target", "expected"),
    [
        # By the means of its quantiles the online network chooses actions 1, 0, 1 ...
        (double_q_target, [[1 + 0.5 * 4, 1 + 0.5 * 6], [-2.0, -2.0], [0.5 - 0.5, 0.5 + 0.5]]),
        # ... and the target network 0, 0, 0.
        (q_target, [[1 + 0.5 * 9, 1 + 0.5 * 9], [-2.0, -2.0], [0.5 + 9 / 4, 0.5 + 9 / 4]]),
    ],
)
def test_target_by_hand(td_target, expected):
    target = target_of(
        td_target,
        returns=torch.tensor([1.0, -2.0, 0.5]),
        discounts=torch.tensor([0.5, 0.0, 0.25]),
        next_online=torch.tensor(
            [[[9.0, -9.0], [1.0, 5.0]], [[1.0, 1.0], [8.0, -8.0]], [[0.0, 1.0], [0.0, 2.0]]]
        ),
        next_target=torch.tensor(
            [[[9.0, 9.0], [4.0, 6.0]], [[8.0, 8.0], [7.0, 7.0]], [[9.0, 9.0], [-2.0, 2.0]]]
        ),
    )
    assert target.tolist() == expected
    assert target.dtype == torch.float32


@pytest.mark.parametrize("kappa", [0.03, 1.0])
def test_quantile_loss_is_that_of_the_paper(kappa):
    rng = np.random.default_rng(0)
    quantiles, target = rng.normal(scale=kappa, size=(2, 6, 8)).astype(np.float32)
    loss = quantile_huber(torch.from_numpy(quantiles), torch.from_numpy(target), kappa)
    expected = [loss_by_hand(*rows, kappa) for rows in zip(quantiles, target, strict=True)]
    assert loss.numpy() == pytest.approx(expected, rel=1e-4)


# the network


@pytest.mark.parametrize(("num_actions", "num_quantiles"), [(5, 1), (7, 32), (12, 32)])
@pytest.mark.parametrize("frame_size", [21, 42, 84, 168])
def test_network_gives_quantiles_for_each_action(num_actions, num_quantiles, frame_size):
    network = DuelingNetwork(num_actions, num_quantiles=num_quantiles, frame_size=frame_size)
    quantiles = network(torch.zeros(3, STACK, frame_size, frame_size, dtype=torch.uint8))
    assert quantiles.shape == (3, num_actions, num_quantiles)
    assert quantiles.dtype == torch.float32


def test_dueling_identity():
    torch.manual_seed(0)
    network = DuelingNetwork(NUM_ACTIONS, num_quantiles=2, frame_size=FRAME_SHAPE[0])
    obs = torch.from_numpy(make_batch().obs)
    with torch.no_grad():
        features = network.trunk(obs.float() / 255)
        value, advantage = network.value(features), network.advantage(features)
        quantiles = network(obs)
    advantage = advantage.reshape(-1, NUM_ACTIONS, 2)
    mean = quantiles.mean(dim=1, keepdim=True)
    mean_advantage = advantage.mean(dim=1, keepdim=True)
    assert mean_advantage.abs().min() > 1e-3  # or the mean need not be subtracted
    torch.testing.assert_close(mean.squeeze(1), value)
    torch.testing.assert_close(quantiles - mean, advantage - mean_advantage)


@pytest.mark.parametrize("grey", [0, 51, 255])
def test_pixels_become_numbers_from_0_to_1(grey):
    torch.manual_seed(0)
    network = DuelingNetwork(NUM_ACTIONS, frame_size=FRAME_SHAPE[0])
    shape = (2, STACK, *FRAME_SHAPE)
    with torch.no_grad():
        features = network.trunk(torch.full(shape, grey / 255))
        advantage = network.advantage(features)
        expected = network.value(features) + advantage - advantage.mean(dim=1, keepdim=True)
        actual = network(torch.full(shape, grey, dtype=torch.uint8)).squeeze(2)
    torch.testing.assert_close(actual, expected)


def test_q_values_are_those_of_the_online_network():
    learner, batch = make_learner(), make_batch()
    q_values = learner.online_net.q_values(batch.obs)
    assert q_values.shape == (4, NUM_ACTIONS) and q_values.dtype == np.float32
    with torch.no_grad():
        quantiles = learner.online_net(torch.from_numpy(batch.obs))
    assert quantiles.shape == (4, NUM_ACTIONS, LearnerConfig().num_quantiles)
    assert np.array_equal(q_values, quantiles.mean(dim=2).numpy())


def test_order_of_the_frames_matters():
    learner, batch = make_learner(), make_batch()
    reversed_q = learner.online_net.q_values(batch.obs[:, ::-1].copy())
    assert not np.allclose(learner.online_net.q_values(batch.obs), reversed_q)


# the update


@pytest.mark.parametrize(("num_quantiles", "double_q"), [(1, True), (32, True), (32, False)])
def test_update_reports_errors_loss_and_q_values(num_quantiles, double_q):
    learner = make_learner(learning_rate=1e-2, num_quantiles=num_quantiles, double_q=double_q)
    for seed in range(3):  # so that the two networks differ
        learner.update(make_batch(seed=seed))
    batch = make_batch(seed=9, returns=np.array([0.3, -0.2, 6.0, -7.0], dtype=np.float32))
    td_target = target_by_hand(learner, batch, double_q)
    quantiles = quantiles_of(learner.online_net, batch.obs)[np.arange(4), batch.actions]
    errors = td_target.mean(axis=1) - quantiles.mean(axis=1)
    if num_quantiles == 1:
        losses = np.where(abs(errors) <= 1, errors**2 / 2, abs(errors) - 0.5)
    else:
        rows = zip(quantiles, td_target, strict=True)
        losses = np.array([loss_by_hand(*row, LearnerConfig().reward_scale) for row in rows])
    result = learner.update(batch)
    assert result.td_errors == pytest.approx(errors, rel=1e-4, abs=1e-4)
    assert result.td_errors.dtype == np.float32
    assert result.metrics["loss"] == pytest.approx((batch.is_weights * losses).mean(), rel=1e-4)
    assert result.metrics["q_value"] == pytest.approx(quantiles.mean(), rel=1e-4, abs=1e-4)
    assert result.metrics["grad_norm"] > 0


def test_update_bootstraps_from_the_target_network():
    batch = make_batch(discounts=np.array([0.9, 0.9, 0.0, 0.0], dtype=np.float32))
    errors = []
    for synced in (False, True):
        learner = make_learner(learning_rate=1e-2)
        for _ in range(2):
            learner.update(batch)
        if synced:
            learner.sync_target()
        errors.append(learner.update(batch).td_errors)
    assert (abs(errors[0] - errors[1])[:2] > 1e-2).all()
    assert errors[0][2:].tolist() == errors[1][2:].tolist()  # nothing follows a terminal state


def test_only_sync_target_moves_the_target_network():
    learner, batch = make_learner(learning_rate=1e-2), make_batch()
    online, target = learner.online_net, learner.target_net
    before = target.q_values(batch.obs)
    learner.update(batch)
    assert np.array_equal(target.q_values(batch.obs), before)
    assert not np.allclose(online.q_values(batch.obs), before)
    learner.sync_target()
    assert np.array_equal(target.q_values(batch.obs), online.q_values(batch.obs))
    learner.update(batch)  # a copy, not the same tensors
    assert not np.array_equal(target.q_values(batch.obs), online.q_values(batch.obs))


def test_samples_of_weight_zero_change_nothing():
    learner = make_learner()
    before = weights_of(learner)
    result = learner.update(make_batch(is_weights=np.zeros(4, dtype=np.float32)))
    assert torch.equal(weights_of(learner), before)
    assert result.metrics["loss"] == 0 and result.metrics["grad_norm"] == 0
    assert (result.td_errors != 0).all()  # their priorities are renewed all the same


@pytest.mark.parametrize("last_weight", [0.0, 1.0])
def test_weights_tell_which_samples_count(last_weight):
    weights = np.array([1.0, 0.5, last_weight, last_weight], dtype=np.float32)
    batch = make_batch(is_weights=weights)
    other = make_batch(seed=1)
    # Another batch in its last two samples
    columns = {
        name: np.concatenate([getattr(batch, name)[:2], getattr(other, name)[2:]])
        for name in Batch._fields
        if name != "drawn_at"
    }
    changed = Batch(drawn_at=4, **columns)._replace(is_weights=weights)
    results = []
    for each in (batch, changed):
        learner = make_learner()
        learner.update(each)
        results.append(gradient_of(learner))
    assert torch.allclose(*results, rtol=1e-5, atol=1e-7) == (last_weight == 0)


def test_gradient_grows_with_the_weights():
    gradients = []
    for weight in (0.25, 1.0):
        learner = make_learner(max_grad_norm=1e6)
        learner.update(make_batch(is_weights=np.full(4, weight, dtype=np.float32)))
        gradients.append(gradient_of(learner))
    torch.testing.assert_close(4 * gradients[0], gradients[1])


def test_gradient_is_clipped_to_the_norm():
    batch = make_batch(returns=np.full(4, 500, dtype=np.float32))
    free, clipped = make_learner(max_grad_norm=1e9), make_learner(max_grad_norm=1e-3)
    norms = [learner.update(batch).metrics["grad_norm"] for learner in (free, clipped)]
    assert norms[0] == norms[1] > 0.1  # reported as it was before
    # The norm of millions of float32 is itself right to three digits or so.
    assert gradient_of(free).norm().item() == pytest.approx(norms[0], rel=1e-3)
    assert gradient_of(clipped).norm().item() == pytest.approx(1e-3, rel=1e-2)
    direction = torch.cosine_similarity(gradient_of(free), gradient_of(clipped), dim=0)
    assert direction.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("num_quantiles", "updates"), [(1, 15), (32, 40)])
def test_loss_goes_down_on_a_fixed_batch(num_quantiles, updates):
    learner = make_learner(learning_rate=1e-3, num_quantiles=num_quantiles)
    batch = make_batch(discounts=np.zeros(4, dtype=np.float32))
    losses = [learner.update(batch).metrics["loss"] for _ in range(updates)]
    assert losses[-1] < losses[0] / 10
    q_values = learner.online_net.q_values(batch.obs)[np.arange(4), batch.actions]
    assert q_values == pytest.approx(batch.returns, abs=0.3)


def test_observations_in_device_memory_make_the_same_update():
    batch = make_batch()
    obs, next_obs = torch.from_numpy(batch.obs), torch.from_numpy(batch.next_obs)
    learners = make_learner(), make_learner()
    results = [
        learners[0].update(batch),
        learners[1].update(batch._replace(obs=obs, next_obs=next_obs)),
    ]
    assert np.array_equal(results[0].td_errors, results[1].td_errors)
    assert torch.equal(weights_of(learners[0]), weights_of(learners[1]))


def test_order_in_memory_changes_nothing():
    """From the replay the observations come with all the oldest frames first."""
    batch = make_batch()
    planes = np.ascontiguousarray(batch.obs.swapaxes(0, 1)).swapaxes(0, 1)
    assert planes.strides != batch.obs.strides
    network = make_learner().online_net
    assert np.array_equal(network.q_values(planes), network.q_values(batch.obs))


@pytest.mark.parametrize(("num_quantiles", "updates"), [(1, 15), (32, 40)])
def test_bfloat16_convolutions_change_little_and_learn(num_quantiles, updates):
    settings = {"learning_rate": 1e-3, "num_quantiles": num_quantiles}
    exact = make_learner(**settings)
    rounded = make_learner(dtype=torch.bfloat16, **settings)
    batch = make_batch(discounts=np.zeros(4, dtype=np.float32))
    q_values = rounded.online_net.q_values(batch.obs)
    assert q_values.dtype == np.float32
    assert not np.array_equal(q_values, exact.online_net.q_values(batch.obs))
    assert q_values == pytest.approx(exact.online_net.q_values(batch.obs), abs=0.01)
    assert all(p.dtype == torch.float32 for p in rounded.online_net.parameters())
    losses = [rounded.update(batch).metrics["loss"] for _ in range(updates)]
    assert losses[-1] < losses[0] / 10


def test_average_reaches_back_over_the_last_eighth_of_the_updates(tmp_path):
    learner = make_learner(learning_rate=1e-3)
    weights = []
    for i in range(40):
        if i == 20:  # where an interrupted run goes on
            state, learner = saved(learner, tmp_path), make_learner(learning_rate=1e-3)
            learner.load_state(state)
        learner.update(make_batch(seed=i))
        weights.append(weights_of(learner))
    shares = torch.tensor([math.prod(range(n, n + 7)) for n in range(1, 41)], dtype=torch.float64)
    expected = shares / shares.sum() @ torch.stack(weights).double()
    average = torch.cat([p.flatten() for p in learner.average_net.parameters()])
    torch.testing.assert_close(average.double(), expected, rtol=0, atol=1e-6)


# the update beside the games


def test_policy_acts_with_old_weights_until_the_result_is_fetched():
    learner, twin, batch = make_learner(), make_learner(), make_batch()
    before = learner.acting_net.q_values(batch.obs)
    expected = twin.update(batch)
    assert learner.fetch_update() is None
    learner.begin_update(batch)
    learner.wait()
    assert np.array_equal(learner.acting_net.q_values(batch.obs), before)
    assert torch.equal(weights_of(learner), weights_of(twin))
    result = learner.fetch_update()
    assert np.array_equal(result.td_errors, expected.td_errors)
    after = learner.acting_net.q_values(batch.obs)
    assert np.array_equal(after, learner.online_net.q_values(batch.obs))
    assert not np.array_equal(after, before)
    assert learner.fetch_update() is None


def test_result_to_be_fetched_is_part_of_the_state(tmp_path):
    original, restored, batch = make_learner(0), make_learner(1), make_batch()
    original.begin_update(batch)
    restored.load_state(saved(original, tmp_path))
    assert np.array_equal(
        restored.acting_net.q_values(batch.obs), original.acting_net.q_values(batch.obs)
    )
    ours, theirs = original.fetch_update(), restored.fetch_update()
    assert np.array_equal(ours.td_errors, theirs.td_errors)
    assert np.array_equal(ours.slots, theirs.slots)
    assert (ours.drawn_at, ours.metrics) == (theirs.drawn_at, theirs.metrics)
    assert isinstance(theirs.td_errors, np.ndarray)
    assert np.array_equal(
        restored.acting_net.q_values(batch.obs), original.acting_net.q_values(batch.obs)
    )


def test_an_error_in_the_update_arrives():
    learner = make_learner()
    learner.begin_update(make_batch(actions=np.full(4, 99, dtype=np.uint8)))
    with pytest.raises(IndexError, match="index 99"):
        learner.fetch_update()


def test_same_seed_same_updates_to_the_last_bit():
    def train(seed: int) -> torch.Tensor:
        learner = make_learner(seed)
        for i in range(2):
            learner.update(make_batch(seed=i))
        return weights_of(learner)

    first = train(0)
    assert torch.equal(first, train(0))
    assert not torch.equal(first, train(1))


# state


def test_restored_learner_makes_the_same_update_to_the_last_bit(tmp_path):
    original = make_learner(0, learning_rate=1e-3)
    for i in range(3):
        original.update(make_batch(seed=i))
    restored = make_learner(1, learning_rate=1e-3)
    restored.load_state(saved(original, tmp_path))
    assert torch.equal(weights_of(restored), weights_of(original))
    results = [learner.update(make_batch(seed=7)) for learner in (original, restored)]
    assert np.array_equal(results[0].td_errors, results[1].td_errors)
    assert results[0].metrics == results[1].metrics
    assert torch.equal(weights_of(restored), weights_of(original))


def test_order_of_the_moments_in_memory_changes_nothing(tmp_path):
    """Nor do moments that share their memory with others."""
    learner = make_learner()
    learner.update(make_batch())
    state = saved(learner, tmp_path)
    numbers = state.optimizer["state"]
    assert not numbers[0]["exp_avg"].is_contiguous()
    mean = numbers[1]["exp_avg"].mean()
    numbers[1]["exp_avg"] = mean.repeat(len(numbers[1]["exp_avg"]))
    changed = copy.deepcopy(state)
    for moments in changed.optimizer["state"].values():
        moments["step"] = numbers[0]["step"]  # the same tensor in all of them
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = moments[name].contiguous()
    changed.optimizer["state"][1]["exp_avg"] = mean.expand(len(numbers[1]["exp_avg"]))
    weights = []
    for loaded in (state, changed):
        restored = make_learner(seed=1)
        restored.load_state(loaded)
        for seed in (2, 3):
            restored.update(make_batch(seed=seed))
        weights.append(weights_of(restored))
    assert torch.equal(*weights)


def test_without_an_optimizer_it_starts_afresh(tmp_path):
    original = make_learner(0, learning_rate=1e-3)
    original.update(make_batch())
    state = saved(original, tmp_path)
    start = weights_of(original)
    continued, fresh = make_learner(1, learning_rate=1e-3), make_learner(2, learning_rate=1e-3)
    continued.load_state(state)
    fresh.load_state(replace(state, optimizer=None))
    batch = make_batch(seed=7)
    for learner in (continued, fresh):
        assert torch.equal(weights_of(learner), start)
        learner.update(batch)
    assert not torch.equal(weights_of(continued), weights_of(fresh))
    # Adam's first step: moments of one gradient, so that each weight moves by about its sign.
    gradient = gradient_of(fresh)
    expected = start.double() - 1e-3 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(weights_of(fresh).double(), expected, rtol=0, atol=1e-6)
