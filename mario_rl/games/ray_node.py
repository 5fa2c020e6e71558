"""The games on one node of a Ray cluster: an actor around the worker processes of `workers`.

What it returns are bytes, which Ray does not unpickle: one that says whether it could play, then
arrays.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.errors import UserError, WorkerDied
from mario_rl.games.interface import Position
from mario_rl.games.workers import STATE_BYTES, WorkerGames

OK, USER_ERROR, WORKER_DIED = range(3)


class NodeGames:
    """The games of a node; an actor. Its replies begin with a byte that says what they are."""

    def __init__(
        self, config: dict[str, Any], positions: list[tuple[Any, ...]], num_retrying: int
    ) -> None:
        """
        Args:
            config: of EnvConfig.
            positions: where the games shall stand.
        """
        self._config = EnvConfig(**config)
        self._positions = [Position(*position) for position in positions]
        self._num_retrying = num_retrying
        self._lines: list[str] = []  # for the user
        self._games: WorkerGames

    def start(self, packed: bytes) -> bytes:
        """Make the games, and bring them to their positions.

        Args:
            packed: their states, as those of `states`.

        Returns:
            The frames there.
        """
        with _answering() as reply:
            num_envs = len(self._positions)
            self._games = WorkerGames(
                self._config, num_envs, self._lines.append, self._num_retrying
            )
            states = unpacked_states(packed, num_envs)
            reply.append(self._games.restore(self._positions, states).tobytes())
        return b"".join(reply)

    def step(self, commands: bytes, noop_frames: bytes) -> bytes:
        """Carry out commands: int32 [N], and int32 [N].

        Returns:
            Frames, records, and lines for the user.
        """
        with _answering() as reply:
            self._games.step_async(
                np.frombuffer(commands, np.int32), np.frombuffer(noop_frames, np.int32)
            )
            frames, records = self._games.step_wait()
            reply += [frames.tobytes(), records.tobytes(), "\n".join(self._lines).encode()]
            self._lines.clear()
        return b"".join(reply)

    def states(self) -> bytes:
        """Those of the games, compressed; nothing if the emulator has none."""
        with _answering() as reply:
            reply.append(packed_states(self._games.states()))
        return b"".join(reply)


@contextmanager
def _answering() -> Iterator[list[bytes]]:
    """The parts of a reply. An error that a user can mend becomes one."""
    reply = [bytes([OK])]
    try:
        yield reply
    except WorkerDied as error:
        reply[:] = [bytes([WORKER_DIED]), str(error).encode()]
    except UserError as error:
        reply[:] = [bytes([USER_ERROR]), str(error).encode()]


def packed_states(states: Sequence[bytes] | None) -> bytes:
    """The states of games, all of the same length, compressed; nothing if there are none."""
    return b"" if states is None else zlib.compress(b"".join(states), 1)


def unpacked_states(packed: bytes, num_envs: int) -> list[bytes] | None:
    """
    Raises:
        ValueError: if they are not the states of so many games.
    """
    if not packed:
        return None
    content = zlib.decompressobj().decompress(packed, num_envs * STATE_BYTES)
    size, rest = divmod(len(content), num_envs)
    if rest or not size:
        raise ValueError(f"{len(content)} bytes are not the states of {num_envs} games")
    return [content[i : i + size] for i in range(0, len(content), size)]
