"""Games on the nodes of a Ray cluster: an actor (`ray_node`) on each plays a part of them.

Ray places and transports; what the games do depends on nothing but their commands:

1. A step waits for all games, and puts their results in the order of the games.
2. Every 128 steps the actors send the states of their games. When an actor or its node is lost, all
   games go back there, on the nodes that are left, and carry out the same commands again.
3. Nodes that have joined by then are used from there on.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from mario_rl.config import EnvConfig
from mario_rl.errors import UserError, WorkerDied
from mario_rl.games.interface import RECORD_DTYPE, Position, advance
from mario_rl.games.ray_node import OK, WORKER_DIED, NodeGames, packed_states, unpacked_states

_SNAPSHOT_PERIOD_STEPS = 128
_MAX_PLACINGS = 20  # in a row without a step


class _Part(NamedTuple):
    """The games of one actor."""

    actor: Any
    games: slice
    node_id: str
    address: str  # of the node, for people


class _Snapshot(NamedTuple):
    """Where all games stood."""

    positions: list[Position]
    states: list[bytes] | None


class _Lost(Exception):
    """An actor is lost, or its node."""

    def __init__(self, part: _Part, cause: str) -> None:
        super().__init__(f"node {part.address} is lost ({cause})")
        self.node_id = part.node_id


class ClusterGames:
    """Games in lockstep, each part of them on a node. What the methods return are the bytes of
    arrays."""

    def __init__(
        self,
        ray: Any,
        report: Callable[[str], None],
        config: EnvConfig,
        num_envs: int,
        num_retrying: int,
    ) -> None:
        """
        Args:
            ray: the module, connected to a cluster.

        Raises:
            UserError: if the nodes cannot play.
        """
        self._ray = ray
        self._config = config
        self._report = report
        self._num_retrying = num_retrying
        self._num_envs = num_envs
        self._parts: list[_Part] = []
        self._considered: set[str] = set()  # the nodes among which the games were shared out
        self._log: list[tuple[np.ndarray, np.ndarray]] = []  # the commands since the snapshot
        self.restore([Position(0, [])] * num_envs, b"")

    def step(self, commands: np.ndarray, noop_frames: np.ndarray) -> list[bytes]:
        """As `interface.Games`: the frames and the records."""
        self._log.append((commands, noop_frames))
        try:
            frames, records = self._play(commands, noop_frames)
        except _Lost as loss:
            frames, records = self._recover(loss)
        advance(self._positions, commands, noop_frames, records)
        if len(self._log) >= _SNAPSHOT_PERIOD_STEPS:
            self._take_snapshot()
            self._use_new_nodes()
        return [frames.tobytes(), records.tobytes()]

    def states(self) -> list[bytes]:
        """Those of the games, packed."""
        if self._log:
            self._take_snapshot()
        return [packed_states(self._snapshot.states)]

    def restore(self, positions: Sequence[Position], packed: bytes) -> list[bytes]:
        """Bring the games to positions and packed states: the frames there."""
        self._positions = _copied(positions)
        states = unpacked_states(packed, self._num_envs)
        self._snapshot = _Snapshot(_copied(positions), states)
        self._log.clear()
        try:
            frames = self._place(self._nodes())
        except _Lost as loss:
            frames = self._recover(loss)[0]
        return [frames.tobytes()]

    def close(self) -> list[bytes]:
        for part in self._parts:
            with contextlib.suppress(Exception):  # it is gone already
                self._ray.kill(part.actor)
        self._parts = []
        return []

    def _play(self, commands: np.ndarray, noop_frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The frames and records of a step.

        Raises:
            _Lost: if an actor is lost.
        """
        replies = [
            part.actor.step.remote(
                commands[part.games].tobytes(), noop_frames[part.games].tobytes()
            )
            for part in self._parts
        ]
        frames, records = self._frames(), np.empty(self._num_envs, dtype=RECORD_DTYPE)
        for part, reply in zip(self._parts, replies, strict=True):
            rest = _fill(frames[part.games], self._content(part, reply))
            lines = bytes(_fill(records[part.games], rest)).decode(errors="replace")
            for line in filter(None, lines.split("\n")):
                self._report(f"{line} (on node {part.address})")
        return frames, records

    def _frames(self) -> np.ndarray:
        return np.empty((self._num_envs, *self._config.frame_shape), dtype=np.uint8)

    def _content(self, part: _Part, reply: Any) -> memoryview:
        """What an actor has returned.

        Raises:
            _Lost: if it is lost.
            UserError: if it cannot play.
        """
        try:
            content = self._ray.get(reply)
        except self._ray.exceptions.RayTaskError:  # an error in our code
            raise
        except self._ray.exceptions.RayError as error:
            raise _Lost(part, type(error).__name__) from None
        if not isinstance(content, bytes) or not content:
            raise UserError(f"node {part.address} returned something else than bytes")
        if content[0] == OK:
            return memoryview(content)[1:]
        message = content[1:].decode(errors="replace").partition("\n")[0]
        if content[0] == WORKER_DIED:
            raise _Lost(part, message)
        raise UserError(f"node {part.address}: {message}")

    def _recover(self, loss: _Lost) -> tuple[np.ndarray, np.ndarray]:
        """Place all games again where they stood at the snapshot, and carry out the commands since
        then.

        Returns:
            The frames there; and the records of the last command, if there was one.

        Raises:
            WorkerDied: if that fails again and again.
        """
        lost: set[str] = set()
        for _ in range(_MAX_PLACINGS):
            self._report(f"warning: {loss}; its games go on where they were")
            lost.add(loss.node_id)
            nodes = self._nodes()  # Ray may notice the loss only later
            left = [node for node in nodes if node["NodeID"] not in lost]
            try:
                frames, records = self._place(left or nodes), np.empty(0, dtype=RECORD_DTYPE)
                for commands, noop_frames in self._log:
                    frames, records = self._play(commands, noop_frames)
                return frames, records
            except _Lost as another:
                loss = another
        raise WorkerDied(f"{loss}, the last of {_MAX_PLACINGS} failures in a row")

    def _place(self, nodes: list[dict[str, Any]]) -> np.ndarray:
        """Share out the games among the nodes, in proportion to their CPUs, and bring them to the
        snapshot.

        Returns:
            The frames there.

        Raises:
            _Lost: if one of the nodes is lost.
        """
        self.close()
        self._considered = {node["NodeID"] for node in nodes}
        cpus = np.cumsum([0, *(node["Resources"].get("CPU", 1) for node in nodes)])
        bounds = np.round(cpus / cpus[-1] * self._num_envs).astype(int).tolist()
        for node, first, end in zip(nodes, bounds, bounds[1:], strict=False):
            if first < end:
                games, positions = slice(first, end), self._snapshot.positions[first:end]
                num_retrying = min(max(0, self._num_retrying - first), end - first)
                actor = self._actor(node["NodeID"], positions, num_retrying)
                self._parts.append(_Part(actor, games, node["NodeID"], node["NodeManagerAddress"]))
        replies = [part.actor.start.remote(self._packed(part.games)) for part in self._parts]
        frames = self._frames()
        for part, reply in zip(self._parts, replies, strict=True):
            _fill(frames[part.games], self._content(part, reply))
        return frames

    def _actor(self, node_id: str, positions: list[Position], num_retrying: int) -> Any:
        """An actor of `NodeGames`."""
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        options = {"num_cpus": 0, "scheduling_strategy": strategy(node_id, soft=False)}
        places = [tuple(position) for position in positions]
        actor_class = self._ray.remote(NodeGames).options(**options)
        return actor_class.remote(asdict(self._config), places, num_retrying)

    def _packed(self, games: slice) -> bytes:
        """The states at the snapshot; nothing if the emulator has none."""
        states = self._snapshot.states
        return packed_states(None if states is None else states[games])

    def _nodes(self) -> list[dict[str, Any]]:
        """Those that are alive, as Ray describes them.

        Raises:
            WorkerDied: if there is none.
        """
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        if not nodes:
            raise WorkerDied("no node of the Ray cluster is alive")
        return sorted(nodes, key=lambda node: node["NodeID"])

    def _take_snapshot(self) -> None:
        while True:
            try:
                states = self._states()
                break
            except _Lost as loss:
                self._recover(loss)
        self._snapshot = _Snapshot(_copied(self._positions), states)
        self._log.clear()

    def _states(self) -> list[bytes] | None:
        """Those of all games.

        Raises:
            _Lost: if an actor is lost.
        """
        replies = [part.actor.states.remote() for part in self._parts]
        states: list[bytes] = []
        for part, reply in zip(self._parts, replies, strict=True):
            packed = bytes(self._content(part, reply))
            of_part = unpacked_states(packed, part.games.stop - part.games.start)
            if of_part is None:
                return None
            states += of_part
        return states

    def _use_new_nodes(self) -> None:
        """If nodes have joined, share out the games again. Call this at a snapshot."""
        nodes = self._nodes()
        if new := {node["NodeID"] for node in nodes} - self._considered:
            self._report(f"{len(new)} nodes have joined; games are played on {len(nodes)}")
            try:
                self._place(nodes)
            except _Lost as loss:
                self._recover(loss)


def _copied(positions: Sequence[Position]) -> list[Position]:
    return [position._replace(actions=list(position.actions)) for position in positions]


def _fill(array: np.ndarray, content: memoryview) -> memoryview:
    """Fill an array from the beginning of bytes; returns the others.

    Raises:
        UserError: if there are too few.
    """
    if len(content) < array.nbytes:
        raise UserError(f"a node returned {len(content)} bytes instead of {array.nbytes}")
    array[:] = np.frombuffer(content[: array.nbytes], array.dtype).reshape(array.shape)
    return content[array.nbytes :]
