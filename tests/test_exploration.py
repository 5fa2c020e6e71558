"""Exploratory actions."""

import numpy as np
import pytest

from mario_rl.agent.epsilon_greedy import EpsilonGreedy
from mario_rl.config import ExplorationConfig

ACTIONS = 7
GREEDY = 5


def make(**settings):
    config = ExplorationConfig(**{"eps_start": 1.0, "eps_end": 0.1, "eps_decay": 100, **settings})
    return EpsilonGreedy(config, np.random.SeedSequence(0))


def choices(exploration, steps, env_steps=1000, is_first=()):
    """What is chosen by a policy that always takes the same action, [steps, N]."""
    num_envs = len(exploration.epsilons(0))
    q_values = np.tile(np.eye(ACTIONS)[GREEDY], (num_envs, 1))
    return np.array(
        [
            exploration.choose(q_values, env_steps, np.full(num_envs, step in is_first))
            for step in range(steps)
        ]
    )


def test_epsilon_falls_linearly():
    exploration = make(num_envs=2, eps_ladder=0.0)
    epsilons = [exploration.epsilon(steps) for steps in (0, 50, 100, 999)]
    assert epsilons == pytest.approx([1, 0.55, 0.1, 0.1])
    assert exploration.epsilons(50) == pytest.approx([0.55, 0.55])


def test_ladder_is_that_of_ape_x():
    exploration = make(num_envs=8, eps_end=0.4, eps_ladder=7.0)
    expected = [max(0.4 ** (1 + i), 0.01) for i in range(8)]
    assert exploration.epsilons(100) == pytest.approx(expected)
    assert make(num_envs=1, eps_ladder=7.0).epsilons(100) == pytest.approx([0.1])


def test_ladder_ends_where_evaluations_play():
    exploration = make(num_envs=4, eps_end=0.02, eps_ladder=3.0)
    assert exploration.epsilons(100) == pytest.approx([0.02, 0.01, 0.01, 0.01])
    assert make(num_envs=4, eps_end=0.0, eps_ladder=3.0).epsilons(100) == pytest.approx([0] * 4)


def test_share_of_random_actions_is_epsilon():
    chosen = choices(make(num_envs=4, hold_actions=False, eps_end=0.3, eps_ladder=0.0), 5000)
    counts = np.bincount(chosen.ravel(), minlength=ACTIONS) / chosen.size
    expected = np.full(ACTIONS, 0.3 / ACTIONS)
    expected[GREEDY] += 0.7
    assert counts == pytest.approx(expected, abs=0.01)


def test_random_actions_are_held_for_zipf_distributed_times():
    exploration = make(num_envs=64, hold_actions=True, eps_end=0.01, eps_ladder=0.0)
    chosen = choices(exploration, 4000).T.ravel()  # one environment after the other
    changes = np.flatnonzero(np.diff(chosen)) + 1
    lengths = [len(part) for part in np.split(chosen, changes) if part[0] != GREEDY]
    assert max(lengths) == 32
    shares = np.bincount(lengths)[1:5] / len(lengths)
    # Zipf: 1 / (k^2 zeta(2)); now and then one action follows another that is the same.
    assert shares == pytest.approx([0.608, 0.152, 0.068, 0.038], abs=0.03)


def test_nothing_is_held_beyond_the_end_of_an_episode():
    exploration = make(num_envs=64, hold_actions=True, eps_end=1.0)
    choices(exploration, 50)
    before = exploration.state()["steps_left"].copy()
    assert (before > 0).any()
    # At an epsilon of zero only what was begun goes on.
    exploration._config = ExplorationConfig(num_envs=64, eps_start=0.0, eps_end=0.0)
    held = choices(exploration, 1)
    assert (held[0][before == 0] == GREEDY).all() and (held[0][before > 0] != GREEDY).any()
    assert (choices(exploration, 1, is_first=[0]) == GREEDY).all()


def test_state_continues_the_same_choices():
    first, second = make(num_envs=3, eps_end=0.5), make(num_envs=3, eps_end=0.5)
    choices(first, 100)
    second.load_state(first.state())
    assert np.array_equal(choices(first, 100), choices(second, 100))
