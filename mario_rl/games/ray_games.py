"""Many games on the nodes of a Ray cluster (`--ray`).

The games do the same, bit for bit, on any number of nodes, whichever of them fail. If the head of
the cluster is lost, they end.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.errors import WorkerDied
from mario_rl.games.interface import RECORD_DTYPE, Position, advance
from mario_rl.games.ray_bridge import Bridge
from mario_rl.games.ray_node import packed_states, unpacked_states

_bridges: dict[str, Bridge] = {}  # of this process, by the address


class RayGames:
    """Implements `interface.Games`."""

    def __init__(
        self,
        config: EnvConfig,
        num_envs: int,
        report: Callable[[str], None],
        num_retrying: int,
        address: str,
    ) -> None:
        """
        Args:
            address: of the cluster, as HOST:PORT; or LOCAL.

        Raises:
            UserError: if Ray is not installed, there is no such cluster, or it cannot play.
        """
        bridge = _bridges.get(address)
        if bridge is None or bridge.is_closed:
            bridge = _bridges[address] = Bridge(address)
        self._bridge = bridge
        self._number = bridge.num_games
        bridge.num_games += 1
        self._report = report
        self._is_in_step = False
        self._commands = self._noop_frames = np.zeros(0, dtype=np.int32)
        self.num_envs = num_envs
        self.frame_shape = config.frame_shape
        self.positions = [Position(0, []) for _ in range(num_envs)]
        self._call("make", config, num_envs, num_retrying)

    def _call(self, method: str, *arguments: Any) -> list[bytes]:
        self._bridge.begin(self._number, method, *arguments)
        return self._bridge.finish(self._report)

    def step_async(self, commands: np.ndarray, noop_frames: np.ndarray) -> None:
        self._commands, self._noop_frames = commands.astype(np.int32), noop_frames.astype(np.int32)
        self._bridge.begin(self._number, "step", self._commands, self._noop_frames)
        self._is_in_step = True

    def step_wait(self) -> tuple[np.ndarray, np.ndarray]:
        self._is_in_step = False
        frames, records = self._bridge.finish(self._report)
        of_games = np.frombuffer(bytearray(records), RECORD_DTYPE)
        advance(self.positions, self._commands, self._noop_frames, of_games)
        return self._shaped(frames), of_games

    def _shaped(self, frames: bytes) -> np.ndarray:
        return np.frombuffer(bytearray(frames), np.uint8).reshape(self.num_envs, *self.frame_shape)

    def states(self) -> list[bytes] | None:
        return unpacked_states(self._call("states")[0], self.num_envs)

    def restore(
        self, positions: Sequence[Position], states: Sequence[bytes] | None = None
    ) -> np.ndarray:
        self.positions = list(positions)
        return self._shaped(self._call("restore", self.positions, packed_states(states))[0])

    def close(self) -> None:
        if self._bridge.is_closed:
            return
        try:
            if self._is_in_step:
                self.step_wait()
            self._call("close")
        except WorkerDied:  # there is nothing left to be closed
            return
