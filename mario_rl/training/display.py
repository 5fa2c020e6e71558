"""Shows a training run while it lasts: a live panel on a terminal, plain lines elsewhere."""

import math
import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from mario_rl.console import say

PLAIN_INTERVAL_S = 15.0
LIVE_INTERVAL_S = 0.5
SPEED_WINDOW_S = 10.0


@dataclass(frozen=True)
class Status:
    """A moment of a run."""

    episodes: int
    num_episodes: int
    env_steps: int
    updates: int
    epsilon: float
    loss: float | None
    mean_return: float | None  # of the last 100 episodes
    furthest: tuple[int, int, int]  # world, stage, x
    best: str  # what the best model clears
    memory_bytes: int
    gpu_bytes: int
    budget_spent: float  # share, 0 to 1


class Display:
    """Shows one run."""

    def __init__(self, run_name: str) -> None:
        self._run_name = run_name
        self._started = self._shown = time.monotonic()
        self._first: Status | None = None
        self._history: deque[tuple[float, int, int]] = deque()  # time, env steps, updates
        self._live: Any = None
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(refresh_per_second=2)
            self._live.start()

    @property
    def due(self) -> bool:
        """Whether it is time for a new status."""
        interval = PLAIN_INTERVAL_S if self._live is None else LIVE_INTERVAL_S
        return time.monotonic() - self._shown >= interval

    def update(self, status: Status) -> None:
        """Show a status."""
        now = time.monotonic()
        self._first = self._first or status
        self._shown = now
        items = _items(status, self._speeds(status, now), self._time_left(status, now))
        if self._live is None:
            _print("  ".join(f"{name} {value}" for name, value in items))
        else:
            self._live.update(_panel(self._run_name, items, status.budget_spent))

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if self._live is None:
            _print(text)
        else:
            self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _speeds(self, status: Status, now: float) -> tuple[str, str]:
        """Env steps and updates per second since about SPEED_WINDOW_S ago."""
        self._history.append((now, status.env_steps, status.updates))
        while len(self._history) > 2 and self._history[1][0] <= now - SPEED_WINDOW_S:
            self._history.popleft()
        then, env_steps, updates = self._history[0]
        if now <= then:
            return "-", "-"
        seconds = now - then
        return (
            f"{(status.env_steps - env_steps) / seconds:.0f}",
            f"{(status.updates - updates) / seconds:.2f}",
        )

    def _time_left(self, status: Status, now: float) -> str:
        assert self._first is not None
        done = status.budget_spent - self._first.budget_spent
        if not 0 < done < math.inf:  # nothing yet, or a budget in hours that is tiny
            return "-"
        seconds = (now - self._started) * max(0.0, 1 - status.budget_spent) / done
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()


def _print(text: str) -> None:
    try:
        say(text)
    except BrokenPipeError:  # the reader, such as head, has ended; the run continues without it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _items(status: Status, speeds: tuple[str, str], time_left: str) -> list[tuple[str, str]]:
    def known(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    world, stage, x = status.furthest
    memory = f"{status.memory_bytes / 2**30:.1f} GiB"
    if status.gpu_bytes:
        memory += f" + GPU {status.gpu_bytes / 2**30:.1f} GiB"
    return [
        ("episode", f"{status.episodes}/{status.num_episodes}"),
        ("steps", f"{status.env_steps:,}"),
        ("steps/s", speeds[0]),
        ("updates/s", speeds[1]),
        ("epsilon", f"{status.epsilon:.3f}"),
        ("loss", known(status.loss, ".4f")),
        ("return(100)", known(status.mean_return, ".1f")),
        ("furthest", f"{world}-{stage} x={x}" if world else "-"),
        ("best", status.best),
        ("memory", memory),
        ("left", time_left),
    ]


def _panel(run_name: str, items: list[tuple[str, str]], budget_spent: float) -> Any:
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2), expand=True)
    columns = 4
    for _ in range(columns):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="left", no_wrap=True)
    for start in range(0, len(items), columns):
        table.add_row(*(text for item in items[start : start + columns] for text in item))
    bar = ProgressBar(total=1.0, completed=min(1.0, budget_spent))
    return Panel(Group(table, bar), title=run_name, title_align="left")
