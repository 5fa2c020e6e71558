"""Many games at once, in worker processes on every core.

A finished game waits until it is told to begin an episode. That takes a step of its own, so that
the other games hardly wait for it. (If a save point has replaced the saved start, the start screen
is played again, which takes longer.)

A worker that dies, or lacks memory or files, is replaced, and the new one plays its games again up
to where they stood. They are deterministic, so nothing is lost.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.errors import UserError, WorkerDied
from mario_rl.games.emulator import resolved
from mario_rl.games.interface import IDLE, RECORD_DTYPE, Position, advance, bring, execute
from mario_rl.games.mario_game import MarioGame
from mario_rl.machine import available_cores

# The trainer goes first when there are few cores: all games wait for a late trainer, but only the
# next step waits for a late game.
_NICENESS = 10

# Of nes-py more than one, because decisions do not all take equally long: a core whose games are
# done then runs a worker of another core. On FCEUmm a change of process would cost more than that.
_WORKERS_PER_CORE = {"nes-py": 4, "fceumm": 1}

# When that many new workers in a row die before they finish one command, it is no accident.
_MAX_REPLACEMENTS = 5
_PAUSE_S = 0.2  # after the first of them, and longer after each; a shortage may pass

STATE_BYTES = 1 << 17  # at most, of a game

# Only the trainer handles Ctrl-C, and a SIGTERM or SIGHUP to the whole process group.
_FOR_THE_TRAINER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Arrays(NamedTuple):
    """What the trainer and its workers exchange in a step of N games."""

    frames: np.ndarray  # uint8 [N, H, W]
    records: np.ndarray  # RECORD_DTYPE [N]
    commands: np.ndarray  # int32 [N]
    noop_frames: np.ndarray  # int32 [N]
    states: np.ndarray  # uint8 [N, STATE_BYTES], each from its beginning
    state_bytes: np.ndarray  # int32 [N], how many of them; 0: there is no state


class _Shared:
    """The arrays, in memory that all processes share. A kill leaves nothing behind: the memory has
    no name, and the system frees it when its last user ends."""

    def __init__(self, context: Any, num_envs: int, frame_shape: tuple[int, int]) -> None:
        self._buffers = [
            (context.RawArray("B", num_envs * int(np.dtype(dtype).itemsize * np.prod(shape))),
             (num_envs, *shape), np.dtype(dtype))
            for shape, dtype in (
                (frame_shape, np.uint8), ((), RECORD_DTYPE), ((), np.int32), ((), np.int32),
                ((STATE_BYTES,), np.uint8), ((), np.int32),
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
        """
        Raises:
            OSError: if the system starts no process.
        """
        self.part = part
        self._connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, shared, part, config, num_retrying), daemon=True
        )
        leave_deleted_folder()
        try:
            with theirs, signals_for_the_trainer():
                self.process.start()
        except BaseException:  # Ctrl-C, too
            self._connection.close()  # which ends it, if it has begun
            raise

    def begin(self, places: list[tuple[Position, bytes | None]] | None) -> None:
        """Tell it to bring its games to places or, without any, to carry out the shared
        commands."""
        with contextlib.suppress(OSError):  # it is dead, as `finish` will notice
            self._connection.send(places)

    def finish(self) -> None:
        """
        Raises:
            WorkerDied: if it was killed, or lacks memory or files.
            UserError: if that was raised in it.
            RuntimeError: if there was another exception in it.
        """
        try:
            failure = self._connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise WorkerDied(
                f"worker process {self.process.pid} died (exit code {self.process.exitcode})"
            ) from None
        if failure is not None:
            kind, message = failure
            raise kind(message)

    def stop(self) -> None:
        """Even in the middle of a step."""
        self.kill()
        self.process.join()

    def kill(self) -> None:
        self._connection.close()
        self.process.kill()


def required_descriptors(config: EnvConfig, num_envs: int) -> int:
    """How many files `WorkerGames` opens at most."""
    return 2 * _num_workers(config, num_envs) + 8


def _num_workers(config: EnvConfig, num_envs: int) -> int:
    per_core = _WORKERS_PER_CORE.get(resolved(config.emulator), 1)
    return min(num_envs, per_core * available_cores())


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
        self.frame_shape = config.frame_shape
        self.positions = [Position(0, []) for _ in range(num_envs)]
        self._report = report
        self._states: list[bytes] | None = None  # after the last step
        self._workers: list[_Worker] = []
        num_workers = _num_workers(config, num_envs)
        try:
            shared = _Shared(context, num_envs, config.frame_shape)
            self._arrays = shared.arrays()
            self._start = functools.partial(_Worker, context, shared, config, num_retrying)
            for part in np.array_split(np.arange(num_envs), num_workers):
                self._workers.append(self._start(slice(int(part[0]), int(part[-1]) + 1)))
        except BaseException as error:  # Ctrl-C, too: at its end Python waits for them
            started = len(self._workers)
            self.close()
            if not isinstance(error, OSError):
                raise
            raise UserError(
                f"only {started} of {num_workers} worker processes could be started: "
                f"{error.strerror or error}; raise the system's limits (ulimit -u, ulimit -n), or "
                "use fewer --num-envs or --games serial"
            ) from None

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
                self._replace(i, death, in_step=True)
        arrays = self._arrays
        advance(self.positions, arrays.commands, arrays.noop_frames, arrays.records)
        # Copies: a worker that is killed may leave half of the next state.
        if arrays.state_bytes.all():
            sizes = arrays.state_bytes.tolist()
            self._states = [
                state[:size].tobytes() for state, size in zip(arrays.states, sizes, strict=True)
            ]
        return arrays.frames.copy(), arrays.records.copy()

    def states(self) -> list[bytes] | None:
        return self._states

    def _places(self, part: slice) -> list[tuple[Position, bytes | None]]:
        positions, states = self.positions[part], self.states()
        return list(
            zip(positions, states[part] if states else [None] * len(positions), strict=True)
        )

    def restore(
        self, positions: Sequence[Position], states: Sequence[bytes] | None = None
    ) -> np.ndarray:
        self.positions = list(positions)
        self._states = None if states is None else list(states)
        for worker in self._workers:
            worker.begin(self._places(worker.part))
        for i, worker in enumerate(self._workers):
            try:
                worker.finish()
            except WorkerDied as death:
                self._replace(i, death, in_step=False)
        return self._arrays.frames.copy()

    def _replace(self, index: int, death: WorkerDied, in_step: bool) -> None:
        """Start a new worker for one that died, bring its games to their positions, and let it
        carry out the step, if there is one.

        Raises:
            WorkerDied: if the new workers die, too.
        """
        part = self._workers[index].part
        for attempt in range(_MAX_REPLACEMENTS):
            time.sleep(attempt * _PAUSE_S)
            self._workers[index].stop()
            try:
                worker = self._workers[index] = self._start(part)
            except OSError as error:
                death = WorkerDied(f"no worker process could be started: {error.strerror or error}")
                continue
            self._report(f"warning: {death}; a new one takes its games up where they stood")
            try:
                worker.begin(self._places(part))
                worker.finish()
                if in_step:
                    worker.begin(None)
                    worker.finish()
                return
            except WorkerDied as error:
                death = error
        was_killed = self._workers[index].process.exitcode == -signal.SIGKILL
        hint = "; if memory is short, use fewer --num-envs" if was_killed else ""
        raise WorkerDied(f"{death}, the last of {_MAX_REPLACEMENTS + 1} failures in a row{hint}")

    def close(self) -> None:
        """Stop the workers, even in the middle of a step."""
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.stop()
        self._workers = []


def leave_deleted_folder() -> None:
    """Python starts no process while its current directory is one that was deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        os.chdir("/")


@contextmanager
def signals_for_the_trainer() -> Iterator[None]:
    """Processes that begin inside the block do not get them, from their first instant on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        # It begins with the first worker. Then it would unblock SIGINT and SIGTERM here.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_TRAINER)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(
    connection: Connection, shared: _Shared, part: slice, config: EnvConfig, num_retrying: int
) -> None:
    """The worker process: plays its part of the games until the trainer closes the pipe."""
    with contextlib.suppress(OSError):  # forbidden in some sandboxes
        os.nice(_NICENESS)
    try:
        _play(connection, shared.arrays(), part, config, num_retrying)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except UserError as error:
        connection.send((UserError, str(error)))
    except (MemoryError, OSError) as error:
        message = f"worker process {os.getpid()} failed: {str(error) or 'out of memory'}"
        connection.send((WorkerDied, message))
    except Exception:
        connection.send((RuntimeError, f"a worker process failed:\n{traceback.format_exc()}"))


def _play(
    connection: Connection, arrays: _Arrays, part: slice, config: EnvConfig, num_retrying: int
) -> None:
    ours = _Arrays(*(array[part] for array in arrays))
    games = [MarioGame(config, save_points=i < num_retrying) for i in range(part.start, part.stop)]
    while True:
        places = connection.recv()
        for i, game in enumerate(games):
            if places is not None:
                ours.frames[i] = bring(game, *places[i])
            elif ours.commands[i] != IDLE:
                command, noops = int(ours.commands[i]), int(ours.noop_frames[i])
                ours.frames[i], ours.records[i] = execute(game, command, noops)
            state = game.state() or b""
            ours.states[i, : len(state)] = np.frombuffer(state, np.uint8)
            ours.state_bytes[i] = len(state)
        connection.send(None)
