"""The learner's samples/s on one core, against the same update as one writes it at first.

`python -m benchmarks.learner curves` trains both on a small task and plots how they learn;
`python -m benchmarks.learner profile` tells which operators the time goes to, and `python -m
benchmarks.learner sizes` what the size of the picture and double Q-learning cost.
"""

import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import (
    ROOT,
    Contender,
    Result,
    Turns,
    compare,
    main,
    result,
    scaled,
    stay_on_one_core,
)
from mario_rl.agent.dqn import DQN
from mario_rl.agent.learner import Update
from mario_rl.agent.network import DuelingNetwork
from mario_rl.config import STACK, Config, LearnerConfig
from mario_rl.device import trunk_dtype
from mario_rl.machine import available_cores, cpu_has_fast_bfloat16, keep_freed_memory
from mario_rl.registry import LEARNERS
from mario_rl.replay.prioritized import Batch
from mario_rl.training.assembly import build_learner

BATCH_SIZE, NUM_ACTIONS = 256, 7
# As large as `PlainNetwork`
NATURE_CONFIG = Config().replaced(
    {"network_width": 1.0, "num_quantiles": 1, "frame_size": 84, "double_q": True}
)
UPDATES = scaled(6)  # of a round
BAR = 2.0 if cpu_has_fast_bfloat16() else 1.2


class PlainNetwork(nn.Module):
    """`DuelingNetwork` without attention to memory layout, precision and where to scale pixels."""

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(STACK, 32, 8, 4), nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2), nn.ReLU(),
            nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.value = nn.Sequential(nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 1))
        self.advantage = nn.Sequential(nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, num_actions))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        features = self.trunk(obs.float() / 255)
        value, advantage = self.value(features), self.advantage(features)
        q_values: torch.Tensor = value + advantage - advantage.mean(dim=1, keepdim=True)
        return q_values


class PlainLearner(DQN):
    """The update in float32, eager, with the optimizer's defaults."""

    def __init__(self, network: DuelingNetwork, config: LearnerConfig) -> None:
        super().__init__(network, config)
        plain = PlainNetwork(network.num_actions)
        plain.load_state_dict(network.state_dict())
        self._plain_online, self._plain_target = plain, copy.deepcopy(plain)
        self._adam = torch.optim.Adam(plain.parameters(), lr=config.learning_rate, eps=1.5e-4)

    def update(self, batch: Batch) -> Update:
        obs, next_obs = (
            torch.from_numpy(np.ascontiguousarray(x)) for x in (batch.obs, batch.next_obs)
        )
        actions = torch.from_numpy(batch.actions).long()
        with torch.no_grad():
            next_actions = self._plain_online(next_obs).argmax(dim=1, keepdim=True)
            next_q = self._plain_target(next_obs).gather(1, next_actions).squeeze(1)
            td_target = torch.from_numpy(batch.returns) + torch.from_numpy(batch.discounts) * next_q
        q_values = self._plain_online(obs).gather(1, actions[:, None]).squeeze(1)
        huber = nn.functional.smooth_l1_loss(q_values, td_target, reduction="none")
        loss = (torch.from_numpy(batch.is_weights) * huber).mean()
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._plain_online.parameters(), self._max_grad_norm)
        self._adam.step()
        errors = (td_target - q_values).detach().numpy()
        metrics = {"loss": loss.item(), "q_value": q_values.mean().item(), "grad_norm": norm.item()}
        return Update(batch.slots, batch.drawn_at, errors, metrics)

    def fetch_update(self) -> Update | None:
        result = super().fetch_update()
        self.acting_net.load_state_dict(self._plain_online.state_dict())
        return result

    def wait(self) -> None:
        super().wait()
        self.online_net.load_state_dict(self._plain_online.state_dict())

    def sync_target(self) -> None:
        super().sync_target()
        self._plain_target.load_state_dict(self._plain_online.state_dict())


def run() -> Result:
    with Contender(__spec__.name, "ours") as ours, Contender(__spec__.name, "plain") as plain:
        return result(7, "learner", compare("learner", ours, plain), bar=BAR)


LEARNERS.add("plain", PlainLearner)


def new_learner(name: str, config: Config = NATURE_CONFIG) -> Any:
    """A learner of the benchmark, "ours", "ours, bfloat16" or "plain"."""
    device = torch.device("cpu")
    if name == "plain":
        return build_learner(config.replaced({"learner": "plain"}), device)
    precision = {"ours": "auto", "ours, bfloat16": "bfloat16"}[name]
    return build_learner(config, device, trunk_dtype(precision, device))


def random_batch(size: int, frame_size: int = 84) -> Batch:
    """As it comes from the replay."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(2, STACK, size, frame_size, frame_size), dtype=np.uint8)
    obs, next_obs = pixels.swapaxes(1, 2)
    return Batch(
        slots=np.arange(size),
        drawn_at=size,
        obs=obs,
        actions=rng.integers(NUM_ACTIONS, size=size).astype(np.uint8),
        returns=rng.normal(size=size).astype(np.float32),
        discounts=np.full(size, 0.9**3, dtype=np.float32),
        next_obs=next_obs,
        is_weights=np.ones(size, dtype=np.float32),
    )


def _contend(name: str, turns: Turns) -> None:
    stay_on_one_core()
    torch.set_num_threads(1)
    learner = new_learner(name)
    batch = random_batch(BATCH_SIZE)
    if name == "plain":
        batch = batch._replace(
            obs=np.ascontiguousarray(batch.obs), next_obs=np.ascontiguousarray(batch.next_obs)
        )

    def play() -> dict[str, Any]:
        started = time.perf_counter()
        for _ in range(UPDATES):
            learner.update(batch)
        return {"seconds": time.perf_counter() - started, "work": UPDATES * BATCH_SIZE}

    turns.play(play)


def profile() -> None:
    """Which operators an update's time goes to."""
    torch.set_num_threads(1)
    batch = random_batch(BATCH_SIZE)
    for name in ("plain", "ours", "ours, bfloat16"):
        learner = new_learner(name)
        learner.update(batch)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for _ in range(3):
                learner.update(batch)
        operators = profiler.key_averages()
        operators.sort(key=lambda operator: -operator.self_cpu_time_total)
        total = sum(operator.self_cpu_time_total for operator in operators)
        print(f"{name}: {total / 3000:.0f} ms for an update of {BATCH_SIZE}")
        for operator in operators[:8]:
            share = operator.self_cpu_time_total / total
            print(f"  {share:6.1%}  {operator.self_cpu_time_total / 3000:6.1f} ms  {operator.key}")


def sizes() -> None:
    """Milliseconds for an update of the default learner, medians of updates in turns."""
    keep_freed_memory()
    variants = [(size, double_q) for size in (84, 63, 42) for double_q in (True, False)]
    print("| picture | double Q-learning | threads | ms |\n| --- | --- | --- | --- |")
    for threads in range(1, available_cores() + 1):
        torch.set_num_threads(threads)
        learners = {
            (size, double_q): new_learner(
                "ours", Config().replaced({"frame_size": size, "double_q": double_q})
            )
            for size, double_q in variants
        }
        batches = {size: random_batch(BATCH_SIZE, size) for size, _ in variants}
        durations: dict[tuple[int, bool], list[float]] = {variant: [] for variant in variants}
        for _ in range(14):
            for variant, learner in learners.items():
                learner.update(batches[variant[0]])  # brings it into the cache
                started = time.perf_counter()
                learner.update(batches[variant[0]])
                durations[variant].append(1000 * (time.perf_counter() - started))
        for (size, double_q), times in durations.items():
            milliseconds = statistics.median(times[2:])
            print(
                f"| {size}x{size} | {'yes' if double_q else 'no'} | {threads} | "
                f"{milliseconds:.0f} |",
                flush=True,
            )


def curves(path: Path) -> None:
    """Train on the corridor of the tests: 3 seeds with each learner; a plot and a table."""
    import matplotlib.pyplot as plt
    import pandas as pd

    from mario_rl.games.serial import SerialGames
    from mario_rl.storage.paths import RunPaths
    from mario_rl.storage.recorder import Recorder
    from mario_rl.storage.trackers import Tracker
    from mario_rl.training.assembly import build_trainer
    from tests.games import Corridor

    torch.set_num_threads(1)
    config = Config().replaced(
        {
            "action_set": "right", "num_envs": 4, "batch_size": 16, "learning_starts": 64,
            "replay_capacity": 2000, "replay_ratio": 4.0, "target_period": 100,
            "learning_rate": 5e-4, "eps_decay": 1000,
            "importance_steps": 1000, "network_width": 1.0, "num_quantiles": 1,
            "n_step": 3, "reward_scale": 1.0,
            "lr_decay": 0, "eps_ladder": 0.0, "hold_actions": False, "frame_size": 84,
            "double_q": True,
        }
    )  # fmt: skip
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for colour, name in enumerate(("plain", "ours", "ours, bfloat16")):
        returns = []
        for seed in range(3):
            with tempfile.TemporaryDirectory() as directory:
                paths = RunPaths(Path(directory), "curve")
                seeded = config.replaced({"seed": seed})
                learner = new_learner(name, seeded)
                recorder = Recorder(paths, {}, Tracker())
                games = SerialGames.of(
                    [
                        Corridor(frame_shape=config.env.frame_shape)
                        for _ in range(config.exploration.num_envs)
                    ]
                )
                trainer = build_trainer(seeded, learner, games, recorder)
                while trainer.env_steps < 2000:
                    trainer.step()
                learner.wait()
                recorder.close()
                episodes = pd.read_csv(Path(directory) / "stats" / "curve" / "episodes.csv")
            episodes = episodes[episodes.env_steps < 2000]
            bins = episodes.env_steps // 200 * 200 + 100
            returns.append(episodes.episode_return.groupby(bins).mean())
        table = pd.concat(returns, axis=1)
        axes.plot(table.index, table.mean(axis=1), color=f"C{colour}", label=name)
        axes.fill_between(
            table.index, table.min(axis=1), table.max(axis=1), color=f"C{colour}", alpha=0.15
        )
        last = table.iloc[-3:].mean().round(2).tolist()
        print(f"{name:16} mean return over the last 600 env steps, per seed: {last}", flush=True)
    axes.set(xlabel="env steps", ylabel="mean return of an episode", title="Corridor, 3 seeds")
    axes.legend()
    figure.savefig(path, dpi=120)
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    if sys.argv[1:] == ["curves"]:
        curves(ROOT / "docs" / "images" / "learner_curves.png")
    elif sys.argv[1:] == ["profile"]:
        profile()
    elif sys.argv[1:] == ["sizes"]:
        sizes()
    else:
        contenders = {
            name: lambda turns, name=name: _contend(name, turns) for name in ("ours", "plain")
        }
        main(run, contenders)
