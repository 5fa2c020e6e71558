"""Many games at once, in lockstep: in worker processes on every core, or in this process.

Resets are commands like actions are: a finished game stands still until it is told to begin anew,
in a step of its own, and the no-op frames that follow come a step's worth at a time, so that the
others hardly wait for it. (Where a save point has taken the place of the start, the start screen is
played again, which takes longer.)

A worker that dies is replaced, and its games are brought back to where they stood: they are
deterministic, so that nothing that was done is lost.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np

from mario_rl.config import FRAME_SHAPE, EnvConfig
from mario_rl.errors import WorkerDied
from mario_rl.games.mario_game import MarioEnv
from mario_rl.machine import available_cores

RESET = -1  # begin an episode
NOOP = -2  # let as many frames pass as the argument says; only between a RESET and the first action
IDLE = -3  # do nothing
RETRY = -4  # begin an episode at the last save point

# Where the cores are few, the trainer goes first: it holds up the games when it is late, while a
# game that is late is waited for by nobody but the next step.
_NICENESS = 10

# More than one, so that a core whose games are done takes up one of another's: decisions of four
# frames do not all take equally long.
_WORKERS_PER_CORE = 4

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
        ("saved", np.bool_),
    ]
)


class Position(NamedTuple):
    """Where a game stands: it is deterministic, so what was done since the reset says it all."""

    noop_frames: int
    actions: list[int]
    saved: int = 0  # how many of the actions lie before the last save point; 0: there is none
    start: int = 0  # before that where the episode began; 0: at the reset


class Game(Protocol):
    """What `MarioEnv` provides."""

    def reset(self, noop_frames: int = 0) -> tuple[np.ndarray, dict[str, Any]]: ...

    def noop(self, frames: int) -> tuple[np.ndarray, dict[str, Any]]: ...

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]: ...

    def save(self) -> None: ...

    def retry(self) -> tuple[np.ndarray, dict[str, Any]]: ...

    def close(self) -> None: ...


class Envs(Protocol):
    """N games in lockstep."""

    num_envs: int
    positions: list[Position]  # where the games stand; a reset begins a new list of actions

    def step_async(self, commands: np.ndarray, arguments: np.ndarray) -> None:
        """Begin a step: for each game an action or one of RESET, NOOP, IDLE and RETRY, int [N],
        and the command's argument."""

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
    if command < 0:
        if command == RESET:
            frame[:], info = game.reset()
        elif command == RETRY:
            frame[:], info = game.retry()
        else:
            frame[:], info = game.noop(int(argument))
        reward, terminated, truncated = 0.0, False, False
    else:
        frame[:], reward, terminated, truncated, info = game.step(command)
    record["reward"], record["terminated"], record["truncated"] = reward, terminated, truncated
    for name, value in info.items():
        record[name] = value


def _replay(game: Game, position: Position, frame: np.ndarray) -> None:
    frame[:], _ = game.reset(position.noop_frames)
    for action in position.actions[: position.start]:
        game.step(action)
    if position.start > 0:
        game.save()
        frame[:], _ = game.retry()
    for action in position.actions[position.start :]:
        frame[:] = game.step(action)[0]


def _advance(
    positions: list[Position], commands: np.ndarray, arguments: np.ndarray, records: np.ndarray
) -> None:
    """Note what a step did."""
    for i, command in enumerate(commands.tolist()):
        if command == RESET:
            positions[i] = Position(0, [])
        elif command == NOOP:
            before = positions[i]
            positions[i] = Position(before.noop_frames + int(arguments[i]), before.actions)
        elif command == RETRY:
            noop_frames, actions, saved, _ = positions[i]
            positions[i] = Position(noop_frames, actions[:saved], saved, saved)
        elif command != IDLE:
            positions[i].actions.append(command)
            if records[i]["saved"]:
                positions[i] = positions[i]._replace(saved=len(positions[i].actions))


class SerialEnvs:
    """Games played one after the other in this process."""

    def __init__(self, games: Sequence[Game]) -> None:
        self.num_envs = len(games)
        self.positions = [Position(0, []) for _ in games]
        self._games = games
        self._frames = np.zeros((len(games), *FRAME_SHAPE), dtype=np.uint8)
        self._records = np.zeros(len(games), dtype=RECORD_DTYPE)

    def step_async(self, commands: np.ndarray, arguments: np.ndarray) -> None:
        for i, game in enumerate(self._games):
            _execute(game, commands[i], arguments[i], self._frames[i], self._records[i : i + 1])
        _advance(self.positions, commands, arguments, self._records)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray]:
        return self._frames.copy(), self._records.copy()

    def restore(self, positions: Sequence[Position]) -> np.ndarray:
        for game, position, frame in zip(self._games, positions, self._frames, strict=True):
            _replay(game, position, frame)
        self.positions = list(positions)
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


class _Worker:
    """A process that plays a part of the games."""

    def __init__(
        self, context: Any, shared: _Shared, config: EnvConfig, num_retrying: int, part: slice
    ) -> None:
        self.part = part
        # Ctrl-C and a SIGTERM to the whole process group are the trainer's to handle, also while
        # a worker starts: it inherits the mask.
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
        """Let it go to the positions or, if there are none, carry out the shared commands."""
        with contextlib.suppress(OSError):  # it is dead, which `finish` will notice
            self._connection.send(positions)

    def finish(self) -> None:
        """
        Raises:
            WorkerDied: it was killed, or out of memory.
            RuntimeError: there was an exception in it.
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


class WorkerEnvs:
    """Games spread over worker processes, some for each core."""

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        report: Callable[[str], None] = print,
        num_retrying: int = 0,
    ) -> None:
        """
        Args:
            num_retrying: how many of the games, the first, make save points.
            report: is told in one line when a worker had to be replaced.
        """
        # Spawned, not forked: a fork would copy the threads' locks of torch, and the pipes of the
        # other workers, so that none of them would notice when the trainer is killed.
        context = multiprocessing.get_context("spawn")
        self.num_envs = num_envs
        self.positions = [Position(0, []) for _ in range(num_envs)]
        self._report = report
        shared = _Shared(context, num_envs)
        self._frames, self._records, self._commands, self._arguments = shared.arrays()
        self._start = functools.partial(_Worker, context, shared, config, num_retrying)
        num_workers = min(num_envs, _WORKERS_PER_CORE * available_cores())
        parts = np.array_split(np.arange(num_envs), num_workers)
        self._workers = [self._start(slice(int(p[0]), int(p[-1]) + 1)) for p in parts]

    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._workers]

    def step_async(self, commands: np.ndarray, arguments: np.ndarray) -> None:
        self._commands[:] = commands
        self._arguments[:] = arguments
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
        _advance(self.positions, self._commands, self._arguments, self._records)
        return self._frames.copy(), self._records.copy()

    def restore(self, positions: Sequence[Position]) -> np.ndarray:
        self.positions = list(positions)
        for worker in self._workers:
            worker.begin(self.positions[worker.part])
        for i, worker in enumerate(self._workers):
            try:
                worker.finish()
            except WorkerDied as death:
                self._replace(i, death, self.positions[worker.part])
        return self._frames.copy()

    def _replace(self, index: int, death: WorkerDied, positions: list[Position]) -> _Worker:
        """Start a worker in place of one that died, and bring its games to the positions."""
        worker = self._workers[index] = self._start(self._workers[index].part)
        self._report(f"warning: {death}; a new one takes its games up where they stood")
        worker.begin(positions)
        worker.finish()
        return worker

    def close(self) -> None:
        """Stop the workers, also those that are in the middle of a step."""
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
    frames, records, commands, arguments = (array[part] for array in shared.arrays())
    try:
        games = [
            MarioEnv(config, save_points=i < num_retrying) for i in range(part.start, part.stop)
        ]
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
