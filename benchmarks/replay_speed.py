"""Time to assemble one batch of 256 prioritized 3-step transitions from 200,000, and to write the
new priorities back, against other libraries' replays (see `peer_replays`).

Ours stays alive beside one peer at a time, since some peers take 11 GB.
"""

import functools
import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import peer_replays
from benchmarks.harness import Contender, Result, Turns, compare, main, peers_python, result, scaled
from benchmarks.peer_replays import BATCH_SIZE, IMPORTANCE_EXPONENT, Draw, errors
from benchmarks.replay_memory import filled_replay

BATCHES = scaled(40)


def run() -> Result:
    python = peers_python()
    results = {}
    with Contender(__spec__.name, "ours") as ours:
        for name in peer_replays.PEERS:
            with Contender(__spec__.name, name, python) as peer:
                ratios = compare("replay_speed", ours, peer)
            results[name] = result(6, "replay_speed", ratios, bar=2.0)
    best = min(results.values(), key=lambda result: result.ratio)
    return replace(best, peers={name: result.ratio for name, result in results.items()})


def _ours() -> Draw:
    rng = np.random.default_rng(0)
    replay, slots = filled_replay(rng)
    replay.update_priorities(slots, errors(rng, len(slots)), replay.ring.rows_written)
    new_errors = itertools.cycle([errors(rng, BATCH_SIZE) for _ in range(16)])

    def draw() -> None:
        batch = replay.sample(BATCH_SIZE, IMPORTANCE_EXPONENT, rng)
        replay.update_priorities(batch.slots, next(new_errors), batch.drawn_at)

    return draw


def _contend(make: Callable[[], Draw], turns: Turns) -> None:
    draw = make()

    def play() -> dict[str, Any]:
        started = time.perf_counter()
        for _ in range(BATCHES):
            draw()
        return {"seconds": time.perf_counter() - started, "work": BATCHES}

    turns.play(play)


if __name__ == "__main__":
    makers = {"ours": _ours, **peer_replays.PEERS}
    main(run, {name: functools.partial(_contend, make) for name, make in makers.items()})
