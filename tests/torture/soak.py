"""`make soak`: a long training run whose memory and open files must not grow.

Writes docs/images/soak.csv and soak.png.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from matplotlib.figure import Figure

from torture.victims import ROOT, TRAIN

FLAGS = """
    --run-name soak --stage 1-1 --num-episodes 1000000 --replay-capacity 20000
    --learning-starts 2000 --eps-decay 20000 --checkpoint-interval 20 --eval-interval 5000
    --eval-episodes 10
""".split()
SAMPLE_PERIOD_S = 20.0
COLUMNS = ("hours", "memory_mb", "open_files", "processes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images" / "soak.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        command = [sys.executable, str(TRAIN), *FLAGS, "--max-hours", str(args.hours)]
        with open(args.output, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            process = subprocess.Popen([*command, "--output-dir", folder], stdin=subprocess.DEVNULL)
            started = time.monotonic()
            while process.poll() is None:
                writer.writerow(
                    [f"{(time.monotonic() - started) / 3600:.4f}", *sample(process.pid)]
                )
                file.flush()
                time.sleep(SAMPLE_PERIOD_S)
    if process.returncode != 0:
        sys.exit(f"the run ended with exit code {process.returncode}")
    draw(args.output)


def sample(pid: int) -> tuple[int, int, int]:
    """Unique memory in MB, open files and number of a process and its children.

    Unique: what they share, such as libraries, would be counted once for each.
    """
    memory = files = 0
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        try:
            memory += process.memory_full_info().uss
            files += process.num_fds()
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue  # it has just ended
    return round(memory / 1e6), files, len(processes)


def draw(path: Path) -> None:
    table = pd.read_csv(path)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, column, label in zip(
        figure.subplots(1, 2), COLUMNS[1:3], ("memory, MB", "open files"), strict=True
    ):
        axes.plot(table["hours"], table[column], linewidth=1)
        axes.set(xlabel="hours", ylabel=label, ylim=(0, 1.15 * table[column].max()))
        axes.grid(alpha=0.3)
    figure.savefig(path.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
