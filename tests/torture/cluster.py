"""`make cluster-test`: nodes, actors and workers are killed at random, again and again.

What the games did must be what they do in one process.
"""

import argparse
import collections
import os
import random
import sys
import time

import numpy as np
import psutil

from mario_rl.config import EnvConfig
from mario_rl.games.ray_games import RayGames
from mario_rl.games.serial import SerialGames

NUM_ENVS, STEPS = 6, 40  # between two kills
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    config = EnvConfig("1-1", "fceumm", stall_steps=20)
    games = RayGames(config, NUM_ENVS, lambda line: None, 3, cluster.address)
    serial = SerialGames(config, NUM_ENVS, print, 3)
    rng, choose = np.random.default_rng(args.seed), random.Random(args.seed)
    ended = np.ones(NUM_ENVS, dtype=bool)
    counts: collections.Counter[str] = collections.Counter()
    started, different = time.monotonic(), 0
    while counts.total() < args.kills:
        victim = choose.choice(("node", "actor", "worker"))
        at = choose.randrange(STEPS)
        for step in range(STEPS):
            commands = np.where(ended, -1, rng.integers(7, size=NUM_ENVS))
            nothing = np.zeros(NUM_ENVS, dtype=int)
            games.step_async(commands, nothing)
            if step == at:
                counts[victim] += kill(victim, cluster, nodes, choose)
            serial.step_async(commands, nothing)
            ours, theirs = games.step_wait(), serial.step_wait()
            different += not all(map(np.array_equal, ours, theirs))
            ended = theirs[1]["terminated"] | theirs[1]["truncated"]
        if counts.total() % 20 == 0:
            print(f"{dict(counts)}, {different} steps differ", flush=True)
    same_states = games.states() == serial.states()
    games.close()
    cluster.shutdown()
    print("| killed | count |\n| --- | --- |")
    for what, count in sorted(counts.items()):
        print(f"| {what} | {count} |")
    minutes = (time.monotonic() - started) / 60
    print(f"{minutes:.0f} minutes; {different} steps differ; states alike: {same_states}")
    sys.exit(int(different > 0 or not same_states))


def kill(what: str, cluster: object, nodes: list, choose: random.Random) -> int:
    """Kill one, and replace a node. Returns how many were killed."""
    if what == "node":
        nodes.pop(choose.randrange(len(nodes))).kill_raylet()
        nodes.append(cluster.add_node(**NODE))  # type: ignore[attr-defined]
        return 1
    processes = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        is_actor = words[0].startswith("ray::NodeGames")
        if is_actor and what == "actor":
            processes.append(process)
        elif is_actor:
            processes += [
                child
                for child in process.children()
                if any("spawn_main" in word for word in child.cmdline())
            ]
    if not processes:
        return 0
    choose.choice(sorted(processes, key=lambda process: process.pid)).kill()
    return 1


if __name__ == "__main__":
    main()
