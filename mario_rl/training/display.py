"""Shows a training run while it lasts: a live panel on a terminal, plain lines elsewhere."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mario_rl.console import is_live, printable, shows_warnings, tell

PLAIN_INTERVAL_S = 15.0
LIVE_INTERVAL_S = 0.5
SPEED_WINDOW_S = 10.0
_MAX_COLUMNS = 4
_GAP = 2  # characters between the columns


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
    """Shows one run. Whatever cannot be shown is lost; the run goes on."""

    def __init__(self, run_name: str, plain: bool = False) -> None:
        """
        Args:
            plain: show plain lines on a terminal, too.
        """
        self._run_name = run_name
        self._started = self._shown = time.monotonic()
        self._first: Status | None = None
        self._history: deque[tuple[float, int, int]] = deque()  # time, env steps, updates
        self._widths: dict[str, int] = {}  # of the values, the widest so far
        self._live: Any = None
        if not plain and is_live():
            from rich.console import Console
            from rich.live import Live

            console = Console(force_terminal=True, force_interactive=True, force_jupyter=False)
            # Without a thread of its own, in which an error would be out of reach.
            self._live = Live(console=console, auto_refresh=False, redirect_stderr=shows_warnings())
            self._draw(self._live.start)

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
        items = items_of(status, self._speeds(status, now), self._time_left(status, now))
        if (live := self._live) is None:
            tell("  ".join(f"{name} {value}" for name, value in items))
            return
        items = self._as_wide_as_ever(items)
        drawn = panel(self._run_name, items, status.budget_spent, live.console.width)
        self._draw(lambda: live.update(drawn, refresh=True))

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if (live := self._live) is None:
            tell(text)
            return
        text = printable(text, live.console.encoding)
        style = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
        self._draw(lambda: live.console.print(text, **style))

    def _draw(self, action: Callable[[], object]) -> None:
        """Draw on the terminal; if that is gone, go on with plain lines."""
        try:
            action()
        except OSError:
            self.close()

    def _as_wide_as_ever(self, items: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The values filled up to their widest so far: the columns do not jump to and fro."""
        for name, value in items:
            self._widths[name] = max(len(value), self._widths.get(name, 0))
        return [(name, value.ljust(self._widths[name])) for name, value in items]

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
            live, self._live = self._live, None
            with contextlib.suppress(OSError):  # the terminal is gone
                live.stop()


def items_of(status: Status, speeds: tuple[str, str], time_left: str) -> list[tuple[str, str]]:
    """What is shown of a status: names and values."""

    def known(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    world, stage, x = status.furthest
    gpu = [("GPU memory", f"{status.gpu_bytes / 2**30:.1f} GiB")] if status.gpu_bytes else []
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
        ("memory", f"{status.memory_bytes / 2**30:.1f} GiB"),
        *gpu,
        ("left", time_left),
    ]


def panel(run_name: str, items: list[tuple[str, str]], budget_spent: float, width: int) -> Any:
    """The live panel: the items in as many columns as fit into `width` characters, and a bar."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    columns = max((n for n in range(1, _MAX_COLUMNS + 1) if _width(items, n) <= width), default=1)
    table = Table.grid(padding=(0, _GAP), expand=True)
    for _ in range(columns):
        table.add_column(style="dim", overflow="fold")  # where even one column is too wide
        table.add_column(overflow="fold")
    for start in range(0, len(items), columns):
        table.add_row(*(Text(text) for item in items[start : start + columns] for text in item))
    bar = ProgressBar(total=1.0, completed=min(1.0, budget_spent))
    return Panel(Group(table, bar), title=Text(run_name), title_align="left")


def _width(items: list[tuple[str, str]], columns: int) -> int:
    """The characters that a panel with so many columns of names and values takes."""
    gaps, border = _GAP * (2 * columns - 1), 4
    return (
        border
        + gaps
        + sum(
            max(len(item[part]) for item in items[column::columns])
            for column in range(columns)
            for part in (0, 1)
        )
    )
