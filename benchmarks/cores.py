"""What the cores can do at most: one game on each, in processes that have nothing to do with each
other, against one game alone on the machine.

`python -m benchmarks.cores fceumm` (or nes-py) prints the ratio of a core's speed.
"""

import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.harness import ROUNDS, Contender
from mario_rl.machine import available_cores


def _main(emulator: str) -> None:
    ratios = []
    cores = available_cores()
    with ExitStack() as stack, ThreadPoolExecutor(cores) as pool:
        games = [
            stack.enter_context(Contender("benchmarks.actors", "alone", arguments=[emulator]))
            for _ in range(cores)
        ]
        for _ in range(1 + ROUNDS):
            alone = games[0].round()
            together = list(pool.map(Contender.round, games))
            speeds = [answer["work"] / answer["seconds"] for answer in (alone, *together)]
            ratios.append(statistics.mean(speeds[1:]) / speeds[0])
    low, *_, high = sorted(ratios[1:])
    print(f"{statistics.median(ratios[1:]):.2f} ({low:.2f} .. {high:.2f}), {cores} cores")


if __name__ == "__main__":
    _main(sys.argv[1])
