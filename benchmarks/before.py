"""Whole training with the default settings, in env steps/s, against an older commit.

Whole commands take turns: `progressive_mario_trainer.py`, each from its own source tree, for some
thousand env steps. The speed is that of the rows of updates.csv from the first update on; so it
holds the games, the updates and the replay, without the start and the evaluations.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pandas as pd

from benchmarks.harness import ROOT, ROUNDS, Result, fail, result, scaled

BEFORE = "1713518"  # the last commit before FCEUmm
STEPS = 5_000 + scaled(5_000)
_FIRST_ROW = 6_000 if STEPS > 6_500 else 5_250  # env steps; until then the first updates count


def run() -> Result:
    with tempfile.TemporaryDirectory() as directory:
        before = Path(directory) / "before"
        _export(before)
        ratios = []
        for number in range(min(ROUNDS, 4)):
            ours, theirs = (
                _steps_per_s(tree, Path(directory) / f"{name}-{number}")
                for name, tree in (("ours", ROOT), ("before", before))
            )
            print(f"before: round {number}: {ours:.1f} and {theirs:.1f} env steps/s", flush=True)
            ratios.append(ours / theirs)
    return result(14, "training before", ratios, bar=2.0)


def _export(folder: Path) -> None:
    archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, stdout=subprocess.PIPE)
    if archive.returncode != 0:
        fail(f"this clone has no commit {BEFORE}: git fetch --unshallow", code=2)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder)


def _steps_per_s(tree: Path, output: Path) -> float:
    script = tree / "progressive_mario_trainer.py"
    flags = f"--run-name bench --stage 1-1 --max-steps {STEPS} --eval-episodes 1 --output-dir"
    command = [sys.executable, str(script), *flags.split(), str(output)]
    subprocess.run(command, cwd=tree, stdout=subprocess.DEVNULL, check=True)
    rows = pd.read_csv(output / "stats" / "bench" / "updates.csv")
    rows = rows[rows.env_steps >= _FIRST_ROW]
    first, last = rows.iloc[0], rows.iloc[-1]
    return float((last.env_steps - first.env_steps) / (3600 * (last.hours - first.hours)))
