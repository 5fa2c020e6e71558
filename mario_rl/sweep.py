"""Many runs: seeds, stages and settings, a few at a time.

python -m mario_rl.sweep FILE.yaml --jobs 2

name: seeds                                    # the runs are called seeds_stage-1-1_seed-0, ...
settings: {max_steps: 400000, num_episodes: 1000000}    # of every run
grid: {stage: [1-1, 1-2], seed: [0, 1, 2]}     # every combination
"""

import ctypes
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from mario_rl.cli import Parser, number, run_script
from mario_rl.config import Config
from mario_rl.console import command_line, is_live, printable, say, tell
from mario_rl.errors import UserError, shown
from mario_rl.machine import core_numbers
from mario_rl.settings_file import named_settings, nearest, read_yaml, text_of
from mario_rl.storage.files import atomic_write, make_directory, read_json, write_json
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import read_as
from mario_rl.storage.run_lock import RunLock

_MOST_RUNS = 10_000
_PERIOD_S = 0.5
_SHOWN_EVERY_S = 30  # where lines are printed instead of a table
WAITING, RUNNING, FINISHED, STOPPED, FAILED = "waiting", "running", "finished", "stopped", "failed"


@dataclass
class Run:
    """One run of a sweep.

    Attributes:
        status: WAITING, RUNNING, FINISHED, STOPPED (by a person) or FAILED.
        note: the newest of what it said.
    """

    name: str
    config: Config
    status: str = WAITING
    note: str = ""
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)
    cores: tuple[int, ...] = ()

    @cached_property
    def settings(self) -> str:
        """The content of its settings file."""
        return text_of(self.config)


def read_sweep(path: Path) -> tuple[str, list[Run]]:
    """The name of a sweep, and its runs.

    Raises:
        UserError: if the file cannot be read, or a run would not be possible.
    """
    content = read_yaml(path, str(path))
    known = ("name", "settings", "grid")
    for key in content:
        if key not in known:
            raise UserError(f"{path}: there is no {shown(key)}{nearest(str(key), known)}")
    name = content.get("name", path.stem)
    if not isinstance(name, str):
        raise UserError(f"{path}: name: {shown(name)} is not a text")
    common, grid = ({} if content.get(key) is None else content[key] for key in known[1:])
    for key, part in (("settings", common), ("grid", grid)):
        if not isinstance(part, dict):
            raise UserError(f"{path}: {key} must hold lines such as 'stage: 1-1'")
    for key, values in grid.items():
        plain = isinstance(values, list) and all(isinstance(v, str | int | float) for v in values)
        if not plain or not values:
            raise UserError(f"{path}: grid: {shown(key)} must be a list, such as [0, 1, 2]")
    if both := {str(key) for key in common} & {str(key) for key in grid}:
        raise UserError(f"{path}: {min(both)} is in settings and in grid")
    runs: dict[str, Run] = {}
    for values in itertools.islice(itertools.product(*grid.values()), _MOST_RUNS + 1):
        own = dict(zip(grid, values, strict=True))
        config = Config().replaced(named_settings({**common, **own}, str(path)))
        run_name = "_".join([name, *(f"{key}-{value}" for key, value in own.items())])
        try:
            RunPaths(".", run_name)
        except UserError as error:
            raise UserError(f"{path}: it would name a run so: {error}") from None
        if run_name in runs:
            raise UserError(f"{path}: two runs would be called {run_name}")
        runs[run_name] = Run(run_name, config)
    if len(runs) > _MOST_RUNS:
        raise UserError(f"{path}: more than {_MOST_RUNS:,} runs")
    return name, list(runs.values())


@dataclass(frozen=True)
class _Known:
    """What state.json holds of a run."""

    status: Literal["waiting", "running", "finished", "stopped", "failed"]
    settings: str  # as `text_of`
    note: str


class Sweep:
    """Runs a sweep in processes of this machine.

    Each run is an ordinary one: a run that has a checkpoint is resumed. What is known of the runs
    is in sweeps/NAME/state.json, so that a sweep that was killed goes on where it was.
    """

    def __init__(self, name: str, runs: Sequence[Run], output_dir: Path, jobs: int) -> None:
        self.runs = runs
        self._output_dir = output_dir
        self.folder = output_dir / "sweeps" / name
        self._state = self.folder / "state.json"
        make_directory(self.folder)
        cores = core_numbers()
        share = max(1, len(cores) // jobs)
        self._free = [
            tuple(cores[(first + i) % len(cores)] for i in range(share))
            for first in range(0, jobs * share, share)
        ]
        self._stopping = False

    def load(self, retry: bool) -> None:
        """Take over what is known of the runs from before.

        Args:
            retry: let the failed ones run again.

        Raises:
            UserError: if the file of it is damaged.
        """
        if not self._state.exists():
            return
        content = read_json(self._state)
        for run in self.runs:
            if run.name not in content:
                continue
            known: _Known = read_as(_Known, content[run.name], self._state)
            # A larger budget lets a run go on.
            if known.settings == run.settings and known.status in (FINISHED, FAILED):
                run.status, run.note = known.status, known.note
            if retry and run.status == FAILED:
                run.status = WAITING

    def stop(self, *_: object) -> None:
        """Let no more runs begin, and those that train save and end."""
        self._stopping = True
        for run in self.runs:
            if run.process is not None:
                run.process.terminate()

    def step(self) -> bool:
        """Look after the runs; False when none trains and none waits."""
        changed = False
        for run in self.runs:
            if run.process is None:
                continue
            has_ended = run.process.poll() is not None  # before its last line is read
            run.note = _last_line(self._log(run))
            if has_ended:
                self._end(run)
                changed = True
        for run in self.runs:
            if run.status == WAITING and self._free and not self._stopping:
                self._begin(run)
                changed = True
        if changed:
            self._save()
        return any(run.process is not None for run in self.runs)

    def _begin(self, run: Run) -> None:
        settings = self.folder / f"{run.name}.yaml"
        atomic_write(settings, lambda file: file.write(run.settings.encode()))
        command = [sys.executable, "-m", "progressive_mario_trainer", "--run-name", run.name]
        command += ["--output-dir", str(self._output_dir.resolve()), "--plain"]
        command += ["--config", str(settings.resolve())]
        paths = RunPaths(self._output_dir, run.name)
        if any(paths.checkpoints.glob("*.json")):
            command.append("--resume")
        run.cores = self._free.pop(0)
        with self._log(run).open("wb") as log, _on_cores(run.cores):
            run.process = subprocess.Popen(
                command,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for us
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        run.status = RUNNING

    def _end(self, run: Run) -> None:
        assert run.process is not None
        text = self._log(run).read_text(errors="replace")
        if self._stopping and run.process.returncode == -signal.SIGTERM:  # it had not begun yet
            run.status = STOPPED
        elif run.process.returncode != 0:
            run.status = FAILED
        else:
            run.status = FINISHED if re.search("^finished: ", text, re.M) else STOPPED
        if run.status == STOPPED:
            run.note = ""  # it names the command for this run alone
        run.process = None
        self._free.append(run.cores)

    def _log(self, run: Run) -> Path:
        return self.folder / f"{run.name}.log"

    def _save(self) -> None:
        known = {
            run.name: asdict(_Known(run.status, run.settings, run.note))  # type: ignore[arg-type]
            for run in self.runs
        }
        write_json(self._state, known)


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        lines = file.read().decode(errors="replace").splitlines()
    return lines[-1] if lines else ""


@contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """A process that is started in the block stays on these cores, where the system can do so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _end_with_parent() -> None:
    """In a child: save and end when the process that started it has ended, in whatever way."""
    set_death_signal = 1
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _table(runs: Sequence[Run]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("run", no_wrap=True, min_width=max(len(run.name) for run in runs))
    table.add_column("status", no_wrap=True, min_width=8)
    table.add_column("newest", no_wrap=True, overflow="ellipsis", ratio=1)
    for run in runs:
        table.add_row(*(Text(printable(cell)) for cell in (run.name, run.status, run.note)))
    return table


def _watch_in_table(sweep: Sweep) -> None:
    """Show the runs until all have ended."""
    from rich.live import Live

    with Live(_table(sweep.runs), refresh_per_second=2) as live:
        while sweep.step():
            live.update(_table(sweep.runs))
            time.sleep(_PERIOD_S)
        live.update(_table(sweep.runs))


def _watch_in_lines(sweep: Sweep) -> None:
    """Say what changes, and now and then how far the runs are, until all have ended."""
    said: dict[str, str] = {}
    next_at = time.monotonic() + _SHOWN_EVERY_S
    goes_on = True
    while goes_on:
        goes_on = sweep.step()
        late = time.monotonic() > next_at
        for run in sweep.runs:
            changed = said.get(run.name, WAITING) != run.status
            if changed or (late and run.status == RUNNING):
                tell(f"{run.name}: {run.status}" + (f": {run.note}" if run.note else ""))
                said[run.name] = run.status
        if late:
            next_at = time.monotonic() + _SHOWN_EVERY_S
        if goes_on:
            time.sleep(_PERIOD_S)


def main() -> None:
    parser = Parser("Train many runs: seeds, stages and settings, a few at a time.")
    parser.add_argument("file", type=Path, metavar="FILE.yaml")
    parser.add_argument(
        "--jobs",
        type=number(int, "[1, 256]"),
        default=1,
        help="runs at a time; the cores are shared out among them (default: 1)",
    )
    parser.add_argument("--retry", action="store_true", help="also runs that failed before")
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("."),
        help="where models/, checkpoints/, stats/, videos/ and sweeps/ lie (default: here)",
    )
    args = parser.parse_args()
    name, runs = read_sweep(args.file)
    sweep = Sweep(name, runs, args.output_dir, args.jobs)
    lock = RunLock(sweep.folder, name)
    lock.take()
    try:
        sweep.load(args.retry)
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(stop, sweep.stop)
        (_watch_in_table if is_live() else _watch_in_lines)(sweep)
    finally:
        lock.release()
    _conclude(runs, args.output_dir)


def _conclude(runs: Sequence[Run], output_dir: Path) -> None:
    from mario_rl.reports import comparison
    from mario_rl.reports.recorded_runs import read_runs

    finished = [run.name for run in runs if run.status == FINISHED]
    if finished:
        groups = comparison.ungrouped(read_runs(finished, output_dir))
        say(comparison.format_table(comparison.table(groups)))
    if failed := [run for run in runs if run.status == FAILED]:
        lines = "; ".join(f"{run.name}: {run.note}" for run in failed[:3])
        raise UserError(f"{len(failed)} of {len(runs)} runs failed (--retry): {lines}")
    if any(run.status != FINISHED for run in runs):
        tell(f"go on with: {command_line([sys.executable, '-m', 'mario_rl.sweep', *sys.argv[1:]])}")
        raise KeyboardInterrupt


command = partial(run_script, main)

if __name__ == "__main__":
    command()
