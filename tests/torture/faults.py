"""Every write of a run fails, one after the other: once, or also all that follow, or those in one
folder.

The run is in this process, and what Python calls to write is replaced here. So hundreds of failures
take minutes.
"""

import builtins
import contextlib
import errno
import io
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from scripts import call

from torture.victims import TRAIN, Run

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT)
EPISODES = 6


class Faults:
    """Counts what is done to the files below a folder, and lets some of it fail."""

    def __init__(self, folder: Path, fails: Callable[[int, str], bool], error: int = 0) -> None:
        """
        Args:
            fails: gets the number of an operation, from 0, and the path.
            error: the errno of the failures.
        """
        self._folder = f"{folder}{os.sep}"
        self._fails = fails
        self._error = error
        self._lock = threading.Lock()
        self.count = 0
        self.failures: list[str] = []

    def check(self, operation: str, path: Any) -> None:
        """Count an operation, and raise if it is to fail."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        path = os.path.abspath(os.fsdecode(path))
        if not path.startswith(self._folder):
            return
        with self._lock:
            number, self.count = self.count, self.count + 1
            if not self._fails(number, path):
                return
            self.failures.append(f"{operation} {path}")
        raise OSError(self._error, os.strerror(self._error), path)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        opened = builtins.open

        def open_file(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, int) or not set(mode) & set("wax+"):
                return opened(path, mode, *args, **kwargs)
            self.check("open", path)
            return _File(opened(path, mode, *args, **kwargs), self, path)

        def checked(name: str) -> Any:
            function = getattr(os, name)

            def call_it(path: Any, *args: Any, **kwargs: Any) -> Any:
                self.check(name, path)
                return function(path, *args, **kwargs)

            return mock.patch.object(os, name, call_it)

        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(builtins, "open", open_file))
            stack.enter_context(mock.patch.object(io, "open", open_file))
            for name in ("fsync", "replace", "unlink", "mkdir"):
                stack.enter_context(checked(name))
            yield


class _File:
    """A file that is being written."""

    def __init__(self, file: Any, faults: Faults, path: Any) -> None:
        self._file = file
        self._faults = faults
        self._path = path
        self._begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, data: Any) -> Any:
        if not self._begun:  # PyTorch writes a file in hundreds of pieces
            self._begun = True
            self._faults.check("write", self._path)
        return self._file.write(data)


class Torture:
    """Small runs with failures, each compared with one that has none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = iter(range(1_000_000))
        faults = Faults(folder, lambda number, path: False)
        run = self._new_run()
        self._train(run, faults)
        self.writes = faults.count
        self._expected = run.outcome()
        run.remove()

    def fail(self, at: int, rng: random.Random) -> Counter[str]:
        """One run in which a write fails.

        Args:
            at: its number, below `writes`.
        """
        error = rng.choice(ERRORS)
        kind = rng.choice(["once", "once", "and all after it", "and those after it in a folder"])
        part = rng.choice(["models", "checkpoints", "stats"]) + os.sep
        fails: Callable[[int, str], bool] = {
            "once": lambda number, path: number == at,
            "and all after it": lambda number, path: number >= at,
            "and those after it in a folder": lambda number, path: number >= at and part in path,
        }[kind]
        faults = Faults(self._folder, fails, error)
        run = self._new_run()
        code = self._train(run, faults)
        if code:
            self._train(run)
        outcome = run.outcome()
        different = [name for name in self._expected if self._expected[name] != outcome[name]]
        if different:
            print(f"LOST: {', '.join(different)} after {os.strerror(error)}, {kind}, at {at}:\n"
                  f"{faults.failures[:3]}\n{run.log()[-3000:]}")  # fmt: skip
        failed = bool(faults.failures)
        run.remove()
        return Counter({
            "runs": 1, "survived": not different, "lost": bool(different),
            f"failed writes: {kind}": failed,
            "... of these noticed at the end, in one line": bool(code),
        })  # fmt: skip

    def _new_run(self) -> Run:
        return Run(self._folder, f"faults{next(self._numbers)}", EPISODES, seed=0)

    def _train(self, run: Run, faults: Faults | None = None) -> int:
        """Start or resume it. Returns the exit code; without faults that must be 0, else it may be
        2."""
        words = [*run.words(), "--games", "serial", "--eval-interval", "50"]
        with faults.installed() if faults else contextlib.nullcontext():
            code, output, errors = call(TRAIN.name, words, self._folder)
        with open(self._folder / f"{run.paths.run_name}.log", "a") as log:
            log.write(f"{words}\n{output}{errors}exit code {code}\n")
        assert code in ((0, 2) if faults else (0,)), run.log()[-3000:]
        assert "Traceback" not in output + errors, run.log()[-3000:]
        return int(code)


def torture(folder: Path, times: int, rng: random.Random) -> Counter[str]:
    """So many runs: every write of a run fails in turn, and from the first again."""
    runs = Torture(folder)
    counts: Counter[str] = Counter()
    for number in range(times):
        counts.update(runs.fail(number % runs.writes, rng))
    return counts
