"""Runs the benchmarks, all or those named by number, and keeps their results:

python -m benchmarks [1,5,...]
"""

import json
import shlex
import sys
from collections.abc import Callable

from benchmarks import (
    actors,
    before,
    emulators,
    environment,
    inference,
    learner,
    loop,
    replay_memory,
    replay_speed,
    training,
    wrappers,
)
from benchmarks.harness import ROOT, SCALE, Result, fail, peers_python, print_table, to_json
from mario_rl.machine import hardware, versions

BENCHMARKS: dict[int, Callable[[], Result]] = {
    1: environment.run,
    2: wrappers.run,
    3: actors.run,
    4: loop.run,
    5: replay_memory.run,
    6: replay_speed.run,
    7: learner.run,
    8: training.run,
    9: inference.run,
    10: emulators.run_environment,
    11: emulators.run_bare,
    12: actors.run_fceumm,
    13: emulators.run_restore,
    14: before.run,
}
NEED_PEERS = {6, 8}
RESULTS = ROOT / "benchmarks" / "results.json"


def main() -> None:
    chosen = _chosen(sys.argv[1:])
    if NEED_PEERS.intersection(chosen):
        peers_python()  # better to fail now than after an hour
    print("$ " + shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    print(json.dumps({"hardware": hardware(), "versions": versions()}), flush=True)
    results = []
    for number in chosen:
        results.append(BENCHMARKS[number]())
        if SCALE >= 1:
            _keep(results[-1])
    print_table(results)


def _chosen(arguments: list[str]) -> list[int]:
    words = [word for word in ",".join(arguments).split(",") if word]
    if unknown := [word for word in words if word not in map(str, BENCHMARKS)]:
        fail(f"no benchmark {unknown[0]!r}; there are {', '.join(map(str, BENCHMARKS))}", code=2)
    return [int(word) for word in words] or list(BENCHMARKS)


def _keep(result: Result) -> None:
    """Put a result in the place of its predecessor in results.json."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    kept = [entry for entry in kept if entry["id"] != result.id]
    kept = sorted([*kept, to_json(result)], key=lambda entry: entry["id"])
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
