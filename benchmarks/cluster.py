"""Games on a Ray cluster of this machine against the same games without Ray, in turns.

`python -m benchmarks.cluster --num-envs 64` prints both speeds and their ratio. With `--delay-ms
20` the results of each step on Ray come so much later, as they would from far away.
"""

import argparse
import os
import statistics
import time
from contextlib import closing
from typing import Any

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.games.interface import RESET, Games
from mario_rl.games.ray_games import RayGames
from mario_rl.games.workers import WorkerGames


def decisions_per_s(games: Games, steps: int, seed: int, delay_s: float = 0) -> float:
    """Of random play."""
    rng = np.random.default_rng(seed)
    ended = np.ones(games.num_envs, dtype=bool)
    nothing = np.zeros(games.num_envs, dtype=np.int64)
    begin = time.perf_counter()
    for _ in range(steps):
        commands = np.where(ended, RESET, rng.integers(7, size=games.num_envs))
        games.step_async(commands, nothing)
        _, records = games.step_wait()
        time.sleep(delay_s)
        ended = records["terminated"] | records["truncated"]
    return steps * games.num_envs / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    for _ in range(args.nodes - 1):
        cluster.add_node(**node)
    config = EnvConfig("1-1", "fceumm")
    ratios = []
    with (
        closing(WorkerGames(config, args.num_envs, print)) as alone,
        closing(RayGames(config, args.num_envs, print, 0, cluster.address)) as on_ray,
    ):
        for round_number in range(1 + args.rounds):
            without = decisions_per_s(alone, args.steps, round_number)
            with_ray = decisions_per_s(on_ray, args.steps, round_number, args.delay_ms / 1000)
            if round_number:  # the first one warms up
                ratios.append(with_ray / without)
                print(f"{without:.0f} and {with_ray:.0f} decisions/s", flush=True)
    cluster.shutdown()  # type: ignore[no-untyped-call]
    low, *_, high = sorted(ratios)
    print(
        f"{statistics.median(ratios):.2f} ({low:.2f} .. {high:.2f}): {args.num_envs} games, "
        f"{args.nodes} nodes, {args.delay_ms:g} ms later"
    )


if __name__ == "__main__":
    main()
