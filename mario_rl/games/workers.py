"""Many games at once, in worker processes on every core.

A finished game waits until it is told to begin an episode. That takes a step of its own, so that
the other games hardly wait for it. (If a save point has replaced the saved start, the start screen
is played again, which takes longer.)

A worker that dies is replaced, and the new one plays its games again up to where they stood. They
are deterministic, so nothing is lost.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from mario_rl.config import FRAME_SHAPE, EnvConfig
from mario_rl.errors import WorkerDied
from mario_rl.games.interface import IDLE, RECORD_DTYPE, Position, advance, execute, replay
from mario_rl.games.mario_game import MarioGame
from mario_rl.machine import available_cores

# The trainer goes first when there are few cores: all games wait for a late trainer, but only the
# next step waits for a late game.
_NICENESS = 10

# More than one, because decisions do not all take equally long: a core whose games are done then
# runs a worker of another core.
_WORKERS_PER_CORE = 4


class _Arrays(NamedTuple):
    """What the trainer and its workers exchange in a step of N games."""

    frames: np.ndarray  # uint8 [N, 84, 84]
    records: np.ndarray  # RECORD_DTYPE [N]
    commands: np.ndarray  # int32 [N]
    noop_frames: np.ndarray  # int32 [N]


class _Shared:
    """The arrays, in memory that all processes share. A kill leaves nothing behind: the memory has
    no name, and the system frees it when its last user ends."""

    def __init__(self, context: Any, num_envs: int) -> None:
        self._buffers = [
            (context.RawArray("B", num_envs * int(np.dtype(dtype).itemsize * np.prod(shape))),
             (num_envs, *shape), np.dtype(dtype))
            for shape, dtype in (
                (FRAME_SHAPE, np.uint8), ((), RECORD_DTYPE), ((), np.int32), ((), np.int32)
            )
        ]  # fmt: skip

    def arrays(self) -> _Arrays:
        return _Arrays(
            *(
                np.frombuffer(buffer, dtype=dtype).reshape(shape)
                for buffer, shape, dtype in self._buffers
            )
        )


class _Worker:
    """A process that plays a part of the games."""

    def __init__(
        self, context: Any, shared: _Shared, config: EnvConfig, num_retrying: int, part: slice
    ) -> None:
        self.part = part
        # Only the trainer handles Ctrl-C, and a SIGTERM to the whole process group. The worker
        # inherits this mask, so that holds while it starts, too.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            self._connection, theirs = context.Pipe()
            self.process = context.Process(
                target=_work, args=(theirs, shared, part, config, num_retrying), daemon=True
            )
            self.process.start()
            theirs.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def begin(self, positions: list[Position] | None) -> None:
        """Tell it to go to the positions or, without any, to carry out the shared commands."""
        with contextlib.suppress(OSError):  # it is dead, as `finish` will notice
            self._connection.send(positions)

    def finish(self) -> None:
        """
        Raises:
            WorkerDied: if it was killed, or out of memory.
            RuntimeError: if there was an exception in it.
        """
        try:
            failure = self._connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise WorkerDied(
                f"worker process {self.process.pid} died (exit code {self.process.exitcode})"
            ) from None
        if failure is not None:
            raise RuntimeError(f"a worker process failed:\n{failure}")

    def kill(self) -> None:
        self._connection.close()
        self.process.kill()


def required_descriptors(num_envs: int) -> int:
    """How many files `WorkerGames` opens at most."""
    return 2 * _num_workers(num_envs) + 8


def _num_workers(num_envs: int) -> int:
    return min(num_envs, _WORKERS_PER_CORE * available_cores())


class WorkerGames:
    """Implements `interface.Games` with processes, some for each core."""

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        report: Callable[[str], None],
        num_retrying: int = 0,
    ) -> None:
        """As `interface.Games` says; `report` is told when a worker had to be replaced."""
        # Spawned, not forked. A fork would copy the locks of torch's threads. It would also copy
        # the pipes of other workers, which would then not notice when the trainer is killed.
        context = multiprocessing.get_context("spawn")
        self.num_envs = num_envs
        self.positions = [Position(0, []) for _ in range(num_envs)]
        self._report = report
        shared = _Shared(context, num_envs)
        self._arrays = shared.arrays()
        self._start = functools.partial(_Worker, context, shared, config, num_retrying)
        parts = np.array_split(np.arange(num_envs), _num_workers(num_envs))
        self._workers = [self._start(slice(int(p[0]), int(p[-1]) + 1)) for p in parts]

    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._workers]

    def step_async(self, commands: np.ndarray, noop_frames: np.ndarray) -> None:
        self._arrays.commands[:] = commands
        self._arrays.noop_frames[:] = noop_frames
        for worker in self._workers:
            worker.begin(None)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray]:
        for i, worker in enumerate(self._workers):
            try:
                worker.finish()
            except WorkerDied as death:
                replacement = self._replace(i, death, self.positions[worker.part])
                replacement.begin(None)
                replacement.finish()
        frames, records, commands, noop_frames = self._arrays
        advance(self.positions, commands, noop_frames, records)
        return frames.copy(), records.copy()

    def restore(self, positions: Sequence[Position]) -> np.ndarray:
        self.positions = list(positions)
        for worker in self._workers:
            worker.begin(self.positions[worker.part])
        for i, worker in enumerate(self._workers):
            try:
                worker.finish()
            except WorkerDied as death:
                self._replace(i, death, self.positions[worker.part])
        return self._arrays.frames.copy()

    def _replace(self, index: int, death: WorkerDied, positions: list[Position]) -> _Worker:
        """Start a new worker for one that died, and bring its games to the positions."""
        worker = self._workers[index] = self._start(self._workers[index].part)
        self._report(f"warning: {death}; a new one takes its games up where they stood")
        worker.begin(positions)
        worker.finish()
        return worker

    def close(self) -> None:
        """Stop the workers, even in the middle of a step."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.process.join()
        self._workers = []


def _work(
    connection: Connection, shared: _Shared, part: slice, config: EnvConfig, num_retrying: int
) -> None:
    """The worker process: plays its part of the games until the trainer closes the pipe."""
    os.nice(_NICENESS)
    frames, records, commands, noop_frames = (array[part] for array in shared.arrays())
    try:
        games = [
            MarioGame(config, save_points=i < num_retrying) for i in range(part.start, part.stop)
        ]
        while True:
            positions = connection.recv()
            for i, game in enumerate(games):
                if positions is not None:
                    frames[i] = replay(game, positions[i])
                elif commands[i] != IDLE:
                    command, noops = int(commands[i]), int(noop_frames[i])
                    frames[i], records[i] = execute(game, command, noops)
            connection.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:
        connection.send(traceback.format_exc())
