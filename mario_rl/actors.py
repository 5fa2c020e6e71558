"""Many games at once, in lockstep: in worker processes on every core, or in this process.

Resets are commands like actions are: a finished game stands still until it is told to begin anew,
in a step of its own, so that the reset of one game does not hold up the others.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np

from mario_rl.config import FRAME_SHAPE, EnvConfig
from mario_rl.env import MarioEnv

RESET = -1  # begin an episode; the argument is the number of no-op frames
IDLE = -2  # do nothing

# What a step tells beside the frame; see MarioEnv.step.
RECORD_DTYPE = np.dtype(
    [
        ("reward", np.float32),
        ("terminated", np.bool_),
        ("truncated", np.bool_),
        ("x", np.int32),
        ("y", np.int32),
        ("max_x", np.int32),
        ("world", np.int32),
        ("stage", np.int32),
        ("stages_cleared", np.int32),
        ("game_score", np.int32),
        ("coins", np.int32),
        ("time_left", np.int32),
        ("outcome", np.int32),
    ]
)


class Position(NamedTuple):
    """Where a game stands: it is deterministic, so what was done since the reset says it all."""

    noop_frames: int
    actions: list[int]


class Game(Protocol):
    """What `MarioEnv` provides."""

    def reset(self, noop_frames: int = 0) -> tuple[np.ndarray, dict[str, Any]]: ...

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]: ...

    def close(self) -> None: ...


class Envs(Protocol):
    """N games in lockstep."""

    num_envs: int

    def step_async(self, commands: np.ndarray, arguments: np.ndarray) -> None:
        """Begin a step: for each game an action, RESET or IDLE, int [N], and its argument."""

    def step_wait(self) -> tuple[np.ndarray, np.ndarray]:
        """Finish it: frames, uint8 [N, 84, 84], and records, RECORD_DTYPE [N], both copies."""

    def restore(self, positions: Sequence[Position]) -> np.ndarray:
        """Bring every game to a position; returns the frames there, uint8 [N, 84, 84]."""

    def close(self) -> None: ...


def _execute(
    game: Game, command: int, argument: int, frame: np.ndarray, record: np.ndarray
) -> None:
    """Carry out a command; the results go into views of the shared arrays."""
    if command == IDLE:
        return
    if command == RESET:
        frame[:], info = game.reset(argument)
        reward, terminated, truncated = 0.0, False, False
    else:
        frame[:], reward, terminated, truncated, info = game.step(command)
    record["reward"], record["terminated"], record["truncated"] = reward, terminated, truncated
    for name, value in info.items():
        record[name] = value


def _replay(game: Game, position: Position, frame: np.ndarray) -> None:
    frame[:], _ = game.reset(position.noop_frames)
    for action in position.actions:
        frame[:] = game.step(action)[0]


class SerialEnvs:
    """Games played one after the other in this process."""

    def __init__(self, games: Sequence[Game]) -> None:
        self.num_envs = len(games)
        self._games = games
        self._frames = np.zeros((len(games), *FRAME_SHAPE), dtype=np.uint8)
        self._records = np.zeros(len(games), dtype=RECORD_DTYPE)

    def step_async(self, commands: np.ndarray, arguments: np.ndarray) -> None:
        for i, game in enumerate(self._games):
            _execute(game, commands[i], arguments[i], self._frames[i], self._records[i : i + 1])

    def step_wait(self) -> tuple[np.ndarray, np.ndarray]:
        return self._frames.copy(), self._records.copy()

    def restore(self, positions: Sequence[Position]) -> np.ndarray:
        for game, position, frame in zip(self._games, positions, self._frames, strict=True):
            _replay(game, position, frame)
        return self._frames.copy()

    def close(self) -> None:
        for game in self._games:
            game.close()


class _Shared:
    """Arrays in memory that the trainer and its workers share. Survives a kill without a trace:
    the memory has no name, and the system frees it with its last user."""

    def __init__(self, context: Any, num_envs: int) -> None:
        self._buffers = [
            (context.RawArray("B", num_envs * int(np.dtype(dtype).itemsize * np.prod(shape))),
             (num_envs, *shape), np.dtype(dtype))
            for shape, dtype in (
                (FRAME_SHAPE, np.uint8), ((), RECORD_DTYPE), ((), np.int32), ((), np.int32)
            )
        ]  # fmt: skip

    def arrays(self) -> list[np.ndarray]:
        """frames, records, commands, arguments"""
        return [
            np.frombuffer(buffer, dtype=dtype).reshape(shape)
            for buffer, shape, dtype in self._buffers
        ]


class WorkerEnvs:
    """Games spread over worker processes, one for each core."""

    def __init__(self, config: EnvConfig, num_envs: int) -> None:
        # Spawned, not forked: a fork would copy the threads' locks of torch, and the pipes of the
        # other workers, so that none of them would notice when the trainer is killed.
        context = multiprocessing.get_context("spawn")
        self.num_envs = num_envs
        shared = _Shared(context, num_envs)
        self._frames, self._records, self._commands, self._arguments = shared.arrays()
        self._workers: list[tuple[Any, Connection]] = []
        self._slices: list[slice] = []
        # Ctrl-C and a SIGTERM to the whole process group are the trainer's to handle, also while
        # a worker starts: it inherits the mask.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            for part in np.array_split(np.arange(num_envs), min(num_envs, available_cores())):
                ours, theirs = context.Pipe()
                part_slice = slice(int(part[0]), int(part[-1]) + 1)
                process = context.Process(
                    target=_work, args=(theirs, shared, part_slice, config), daemon=True
                )
                process.start()
                theirs.close()
                self._workers.append((process, ours))
                self._slices.append(part_slice)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [process.pid for process, _ in self._workers]

    def step_async(self, commands: np.ndarray, arguments: np.ndarray) -> None:
        self._commands[:] = commands
        self._arguments[:] = arguments
        self._send([None] * len(self._workers))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray]:
        self._receive()
        return self._frames.copy(), self._records.copy()

    def restore(self, positions: Sequence[Position]) -> np.ndarray:
        self._send([list(positions[part]) for part in self._slices])
        self._receive()
        return self._frames.copy()

    def close(self) -> None:
        """Stop the workers, also those that are in the middle of a step."""
        for process, connection in self._workers:
            connection.close()
            process.kill()
        for process, _ in self._workers:
            process.join()
        self._workers = []

    def _send(self, messages: Sequence[Any]) -> None:
        for (process, connection), message in zip(self._workers, messages, strict=True):
            try:
                connection.send(message)
            except OSError:
                raise _death_of(process) from None

    def _receive(self) -> None:
        for process, connection in self._workers:
            try:
                failure = connection.recv()
            except (EOFError, OSError):
                raise _death_of(process) from None
            if failure is not None:
                raise RuntimeError(f"a worker process failed:\n{failure}")


class WorkerDied(RuntimeError):
    """A worker process is gone: killed, or out of memory."""


def _death_of(process: Any) -> WorkerDied:
    process.join()
    return WorkerDied(f"worker process {process.pid} died (exit code {process.exitcode})")


def _work(connection: Connection, shared: _Shared, part: slice, config: EnvConfig) -> None:
    """The worker process: plays its part of the games until the trainer closes the pipe."""
    frames, records, commands, arguments = (array[part] for array in shared.arrays())
    try:
        games = [MarioEnv(config) for _ in range(len(frames))]
        while True:
            positions = connection.recv()
            for i, game in enumerate(games):
                if positions is not None:
                    _replay(game, positions[i], frames[i])
                else:
                    _execute(game, commands[i], arguments[i], frames[i], records[i : i + 1])
            connection.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:
        connection.send(traceback.format_exc())


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
