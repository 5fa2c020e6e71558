"""`make torture`: the long form. Prints a table of what was tried and what came of it."""

import argparse
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torture import damage, faults, stops
from torture.victims import ROOT, Run, reference

EPISODES = 60  # of a run
KILLS_OF_A_RUN = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs, at least")
    parser.add_argument("--others", type=int, default=10, help="of each other way to stop a run")
    parser.add_argument("--faults", type=int, default=400, help="writes that fail")
    parser.add_argument("--damages", type=int, default=1000, help="damaged files")
    parser.add_argument("--flags", type=int, default=300, help="command lines for each script")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.monotonic()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="torture") as name:
        folder = Path(name)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for seed in itertools.count(args.seed, pool._max_workers):
                missing = args.kills - counts["SIGKILL"]
                if missing <= 0:
                    break
                seeds = range(seed, seed + min(pool._max_workers, -(-missing // KILLS_OF_A_RUN)))
                for result in pool.map(lambda seed: kill_a_run(folder, seed), seeds):
                    counts.update(result)
                print(dict(counts), flush=True)
            others = [(stop, 10_000 + n) for n, stop in enumerate(stops.STOPS)]
            for result in pool.map(lambda job: stop_a_run(folder, *job, args.others), others):
                counts.update(result)
                print(dict(counts), flush=True)
        counts.update(damage_a_run(folder, args.damages, args.seed))
        counts.update(faults.torture(folder, args.faults, random.Random(args.seed)))
    print_table(counts, time.monotonic() - started)
    fuzz = [sys.executable, "-m", "pytest", "-q", "-n", "2", str(ROOT / "tests" / "test_flags.py")]
    code = subprocess.run(fuzz, env={**os.environ, "MARIO_RL_FUZZ_EXAMPLES": str(args.flags)})
    sys.exit(int(counts["lost"] > 0 or code.returncode != 0))


def kill_a_run(folder: Path, seed: int) -> Counter[str]:
    return torment(folder, seed, itertools.repeat(stops.kill, KILLS_OF_A_RUN))


def stop_a_run(folder: Path, stop: stops.Stop, seed: int, times: int) -> Counter[str]:
    return torment(folder, seed, itertools.repeat(stop, times))


def torment(folder: Path, seed: int, disturbances: "itertools.repeat[stops.Stop]") -> Counter[str]:
    """One run that is disturbed, against one that is not."""
    expected = reference(folder, f"expected{seed}", EPISODES, seed)
    run = Run(folder, f"run{seed}", EPISODES, seed)
    counts = stops.torment(run, disturbances, random.Random(seed))
    outcome = run.outcome()
    different = [name for name in expected if expected[name] != outcome[name]]
    if different:
        print(f"LOST: run {seed} ended with another {', '.join(different)}\n{run.log()[-3000:]}")
    counts["runs"] += 1
    counts["survived"] += not different
    counts["lost"] += bool(different)
    run.remove()
    return counts


def damage_a_run(folder: Path, times: int, seed: int) -> Counter[str]:
    run = Run(folder, "damaged", 12, seed)
    run.finish()
    return damage.torture(run, times, random.Random(seed))


def print_table(counts: Counter[str], seconds: float) -> None:
    print("\n| what | count |\n| --- | --- |")
    for what, count in counts.items():
        print(f"| {what} | {count} |")
    print(f"\n{seconds / 60:.0f} minutes, {sys.argv[1:]}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
