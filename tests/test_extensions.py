"""The examples of docs/extending.md do what they say, and take a file each."""

import re
import subprocess
import sys
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import torch
from boltzmann_exploration import Boltzmann
from coin_reward import CoinsToo
from edges_view import Edges
from mean_loss import squared_mean
from munchausen_learner import MUNCHAUSEN, TEMPERATURE, munchausen_dqn, munchausen_target
from scripts import ROOT
from spread_statistic import WatchedDQN
from thread_games import ThreadGames

import mario_rl
from mario_rl import registry
from mario_rl.agent.dqn import TensorBatch
from mario_rl.config import Config, EnvConfig, ExplorationConfig
from mario_rl.games.interface import IDLE, RESET, RETRY
from mario_rl.games.mario_game import MarioGame
from mario_rl.games.serial import SerialGames

SMALL = {
    "stage": "1-1", "num_envs": 2, "batch_size": 16, "learning_starts": 40, "replay_ratio": 2.0,
    "replay_capacity": 256, "network_width": 0.05, "eval_episodes": 1, "stall_steps": 10,
    "device": "cpu", "games": "serial", "threads": 1,
}  # fmt: skip
PARTS = {
    "view": (registry.VIEWS, Edges),
    "reward": (registry.REWARDS, CoinsToo),
    "exploration": (registry.EXPLORATIONS, Boltzmann),
    "loss": (registry.LOSSES, squared_mean),
    "learner": (registry.LEARNERS, munchausen_dqn),
    "games": (registry.BACKENDS, ThreadGames),
}


@pytest.fixture
def parts(monkeypatch):
    """All of the examples, registered for a test."""
    for kind, part in PARTS.values():
        monkeypatch.setattr(kind, "_parts", {**kind._parts, "example": part})


def test_every_line_of_the_registry_leads_to_a_part():
    for kind in vars(registry).values():
        if isinstance(kind, registry.Registry):
            assert all(callable(kind.get(name)) for name in kind.names())


def test_the_page_shows_the_files_as_they_are():
    page = (ROOT / "docs" / "extending.md").read_text()
    pattern = r"^\[(examples/extensions/\w+\.py)\]\([^)\n]*\)\n\n```python\n(.*?)```"
    shown = re.findall(pattern, page, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in shown} == {
        str(path.relative_to(ROOT)) for path in (ROOT / "examples/extensions").glob("*.py")
    }
    for name, code in shown:
        assert code == (ROOT / name).read_text(), name


@pytest.mark.parametrize("name", PARTS)
def test_a_run_with_an_example_trains_resumes_and_is_evaluated(name, parts, tmp_path, capsys):
    settings = SMALL | {name: "example"}
    mario_rl.train("run", tmp_path, max_steps=60, **settings)
    mario_rl.train("run", tmp_path, resume=True, max_steps=80)
    run = mario_rl.read_run("run", tmp_path)
    assert run.config.flat()[name] == "example"
    assert run.total("env_steps") >= 80 and len(run.evaluations) >= 2
    assert mario_rl.load(tmp_path / "models" / "run.pth").config.flat()[name] == "example"
    assert "resumed at" in capsys.readouterr().out


def test_a_part_that_is_not_there_is_told_in_one_line(tmp_path):
    with pytest.raises(mario_rl.UserError, match="--view 'example': choose from mario, screen"):
        mario_rl.train("run", tmp_path, **SMALL | {"view": "example"})


def test_edges_are_seen(parts):
    frames = {}
    for view in ("example", "screen"):
        with closing(MarioGame(EnvConfig(stage="1-1", view=view, show_buttons=False))) as game:
            frames[view], _ = game.reset()
    assert frames["example"].shape == EnvConfig().frame_shape
    # The sky has no edges: in most of the picture there is nothing.
    assert (frames["example"] == 0).mean() > 0.5 > (frames["screen"] == 0).mean()


def test_coins_and_points_are_paid(parts):
    actions = list(map(int, (ROOT / "tests/data/clear_1-1.txt").read_text().strip()))
    returns, statuses = {}, {}
    for reward in ("example", "progress"):
        with closing(MarioGame(EnvConfig(stage="1-1", reward=reward))) as game:
            _, first = game.reset()
            returns[reward] = 0.0
            for action in actions:
                _, value, _, _, statuses[reward] = game.step(action)
                returns[reward] += value
    last = statuses["example"]
    paid = last.coins - first.coins + 0.001 * (last.game_score - first.game_score)
    assert paid > 0.5
    assert returns["example"] - returns["progress"] == pytest.approx(paid)


def test_better_actions_are_likelier_and_the_state_holds_all_that_is_random():
    config = ExplorationConfig(num_envs=3, eps_start=0.5, eps_end=0.5)
    first, second = (Boltzmann(config, np.random.SeedSequence(seed)) for seed in (1, 2))
    q_values = np.tile([0.0, 0.5, 1.0], (3, 1))
    none = np.zeros(3, dtype=np.bool_)
    counts = np.bincount(
        np.concatenate([first.choose(q_values, 0, none) for _ in range(2000)]), minlength=3
    )
    expected = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    assert counts / counts.sum() == pytest.approx(expected, abs=0.03)
    second.load_state(first.state())
    for _ in range(20):
        assert np.array_equal(first.choose(q_values, 0, none), second.choose(q_values, 0, none))


def test_loss_is_that_of_the_mean():
    loss = squared_mean(torch.tensor([[1.0, 3.0]]), torch.tensor([[4.0, 6.0]]), 0.03)
    assert loss.tolist() == [4.5]


def test_munchausen_target_by_hand():
    now, following = np.array([0.1, 0.2]), np.array([[0.3, 0.5], [0.4, 0.4]])  # [action, quantile]

    def log_policy(q_values):
        return TEMPERATURE * np.log(np.exp(q_values / TEMPERATURE)
                                    / np.exp(q_values / TEMPERATURE).sum())  # fmt: skip

    later = log_policy(following.mean(axis=1))
    shares = np.exp(later / TEMPERATURE)
    value = sum(shares[a] * (following[a] - later[a]) for a in (0, 1))
    expected = 1.0 + MUNCHAUSEN * max(log_policy(now)[0], -1.0) + 0.9 * value

    answers = {
        0: torch.tensor(now)[None, :, None].expand(1, 2, 2),
        1: torch.tensor(following)[None],
    }
    batch = TensorBatch(
        obs=0, actions=torch.tensor([0]), returns=torch.tensor([1.0]),
        discounts=torch.tensor([0.9]), next_obs=1, is_weights=torch.ones(1),
    )  # fmt: skip
    target = munchausen_target(batch, None, answers.get)
    assert target[0].numpy() == pytest.approx(expected, rel=1e-6)


def test_a_statistic_comes_into_every_record(monkeypatch, tmp_path):
    parts = {**registry.LEARNERS._parts, "watched": WatchedDQN}
    monkeypatch.setattr(registry.LEARNERS, "_parts", parts)
    mario_rl.train("run", tmp_path, max_steps=600, **SMALL | {"learner": "watched"})
    updates = mario_rl.read_run("run", tmp_path).updates
    assert (updates["largest_td_error"] > updates["td_error"]).all() and len(updates) >= 2

    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    events = event_accumulator.EventAccumulator(str(tmp_path / "stats/run/tensorboard"))
    events.Reload()
    scalars = events.Scalars("train/largest_td_error")
    assert [event.step for event in scalars] == updates["env_steps"].tolist()


def test_threads_play_as_serial_games_do():
    config, rng = EnvConfig(stage="1-1"), np.random.default_rng(0)
    backends = [kind(config, 3, print, 2) for kind in (ThreadGames, SerialGames)]
    ended = np.ones(3, dtype=np.bool_)
    given = set()
    for step in range(60):
        commands = rng.integers(1, 5, size=3)
        for i in np.flatnonzero(ended):
            commands[i] = RETRY if backends[0].positions[i].saved else RESET
        commands[step % 5 :: 5] = IDLE  # one game now and then
        results = []
        for games in backends:
            games.step_async(commands, np.full(3, 3))
            results.append(games.step_wait())
        played = commands != IDLE
        for ours, theirs in zip(*results, strict=True):
            assert np.array_equal(ours[played], theirs[played])
        records = results[0][1]
        ended = np.where(played, records["terminated"] | records["truncated"], ended)
        given |= set(commands.tolist())
    assert {RESET, IDLE, 1} <= given
    assert backends[0].positions == backends[1].positions
    restored = [games.restore(backends[0].positions) for games in backends]
    assert np.array_equal(*restored)
    for games in backends:
        games.close()


def test_the_script_trains_a_variant_in_worker_processes(tmp_path):
    script = (ROOT / "examples/train_variant.py").read_text()
    small = script.replace('"max_steps": 400_000', '"max_steps": 60, "learning_starts": 40, '
                           '"batch_size": 16, "num_envs": 2, "eval_episodes": 1')  # fmt: skip
    assert small != script
    small = small.replace("Path(__file__).parent", f"Path({str(ROOT / 'examples')!r})")
    (tmp_path / "variant.py").write_text(small)
    for flags in ([], ["--resume"]):
        result = subprocess.run(
            [sys.executable, "variant.py", "v", *flags], cwd=tmp_path, text=True,
            capture_output=True, env={"PYTHONPATH": str(ROOT), "PATH": ""}, timeout=300,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    assert "resumed at" in result.stdout
    config = Config.from_dict(
        {
            key: value
            for key, value in pd.read_json(tmp_path / "stats/v/config.json", typ="series").items()
            if key == "run"
        }
    )
    assert config.run.max_steps == 60
