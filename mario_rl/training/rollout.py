"""The training games: the commands of a step, and the episodes that they play.

After a death or a stall some of the games continue from their last save point instead of the start.
So they get as far as the policy and its exploration can, and practise longest what is hardest (a
simple form of Go-Explore, Ecoffet et al. 2021, and of Salimans & Chen 2018). The others play from
the start, as in evaluations.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np

from mario_rl.agent.exploration import Exploration
from mario_rl.config import MAX_NOOP_FRAMES
from mario_rl.fields import Array, Count, Items, Within
from mario_rl.games.episode_start import EpisodeStarts
from mario_rl.games.interface import CLEAR, RESET, RETRY, Episode, Games, Position
from mario_rl.training.guide import Decisions, Guide, GuideState

# A save point may be one from which nobody survives, or the clock may run out soon.
MAX_RETRIES = 16


class Step(NamedTuple):
    """The result of one step of N games."""

    frames: np.ndarray  # uint8 [N, H, W]
    actions: np.ndarray  # int64 [N]; no action where `is_first`
    is_first: np.ndarray  # bool [N], whether an episode is being started
    records: np.ndarray  # RECORD_DTYPE [N]
    ended: dict[int, Episode]  # by the number of the game


EACH_GAME = Items("[num_envs, num_envs]")
NoopFrames = Annotated[int, Within("[0, 255]")]
Bytes = Annotated[np.ndarray, Array("uint8", "any")]


@dataclass(frozen=True)
class RolloutState:
    """Everything that the future of the games depends on, as it is in checkpoints."""

    # Whether the next command begins an episode
    needs_reset: Annotated[np.ndarray, Array("bool", "num_envs")]
    # Emulated frames that pass before the first decision
    noops_left: Annotated[np.ndarray, Array("int64", "num_envs", "[0, 255]")]
    # From the last save point
    retries_left: Annotated[np.ndarray, Array("int64", "num_envs", "[0, 255]")]
    episode_returns: Annotated[np.ndarray, Array("float64", "num_envs")]  # so far
    exploration: dict[str, Any]  # the scheme's own
    # The positions of the games, as in `Position`
    noop_frames: Annotated[list[NoopFrames], EACH_GAME]
    actions: Annotated[list[Decisions], EACH_GAME]
    saved: Annotated[list[Count], EACH_GAME]
    start: Annotated[list[Count], EACH_GAME]
    # Where the emulators stand, if they can say; otherwise the games are played again
    states: Annotated[list[Bytes], EACH_GAME] | None = None
    guide: GuideState | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there was a step."""
        return not self.needs_reset.all() or any(map(len, self.actions))

    def check(self) -> None:
        """
        Raises:
            ValueError: names a field that does not fit the others.
        """
        for i, actions in enumerate(self.actions):
            if not self.start[i] <= self.saved[i] <= len(actions):
                raise ValueError(
                    f"start[{i}] is {self.start[i]} and saved[{i}] {self.saved[i]}, of "
                    f"{len(actions)} actions"
                )
        if self.guide is not None:
            self.guide.check()


class Rollout:
    """N games, in lockstep. At first all of them start an episode."""

    def __init__(self, games: Games, exploration: Exploration, guide: Guide | None = None) -> None:
        self.games = games
        self.exploration = exploration
        self.guide = guide
        num_envs = games.num_envs
        self._needs_reset = np.ones(num_envs, dtype=np.bool_)
        self._retries_left = np.zeros(num_envs, dtype=np.int64)
        self._episode_returns = np.zeros(num_envs)
        self._starts = EpisodeStarts(num_envs)
        self._commands = np.zeros(num_envs, dtype=np.int64)

    def step_async(self, q_values: np.ndarray, env_steps: int) -> None:
        """Begin a step: with the actions that the exploration chooses, or with retries and resets.
        A reset is followed by a random number of no-op frames.

        Args:
            q_values: float32 [N, num_actions].
        """
        commands = self.exploration.choose(q_values, env_steps, self._needs_reset)
        noop_frames = self.exploration.rng.integers(MAX_NOOP_FRAMES + 1, size=len(commands))
        retries = self._needs_reset & (self._retries_left > 0)
        resets = self._needs_reset & ~retries
        self._retries_left -= retries
        if self.guide is not None:
            noop_frames[self.guide.begin(resets)] = 0
        step_frames = self._starts.command(commands, resets, noop_frames, retries)
        if self.guide is not None:
            self.guide.lead(commands, self.games.positions)
        self._commands = commands
        self.games.step_async(commands, step_frames)

    def step_wait(self) -> Step:
        """Finish the step."""
        frames, records = self.games.step_wait()
        commands = self._commands
        begins, plays = (commands == RESET) | (commands == RETRY), commands >= 0
        self._needs_reset[begins] = False
        self._episode_returns = np.where(begins, 0.0, self._episode_returns + records["reward"])
        self._retries_left[plays & records["saved"]] = MAX_RETRIES
        self._retries_left[plays & (records["outcome"] == CLEAR)] = 0
        self._needs_reset[plays & (records["terminated"] | records["truncated"])] = True
        ended = {}
        for i in np.flatnonzero(self._needs_reset).tolist():
            position = self.games.positions[i]
            length_steps = len(position.actions) - position.start
            ended[i] = Episode.of(
                records[i], self._episode_returns[i], length_steps, position.start
            )
        return Step(frames, commands, commands < 0, records, ended)

    def state(self) -> RolloutState:
        """Call this between two steps."""
        positions, states = self.games.positions, self.games.states()
        return RolloutState(
            needs_reset=self._needs_reset,
            noops_left=self._starts.noops_left,
            retries_left=self._retries_left,
            episode_returns=self._episode_returns,
            exploration=self.exploration.state(),
            noop_frames=[position.noop_frames for position in positions],
            actions=[np.array(position.actions, dtype=np.uint8) for position in positions],
            saved=[position.saved for position in positions],
            start=[position.start for position in positions],
            states=None if states is None else [np.frombuffer(one, np.uint8) for one in states],
            guide=None if self.guide is None else self.guide.state(),
        )

    def load_state(self, state: RolloutState) -> np.ndarray | None:
        """Bring the games to where they were.

        Returns:
            uint8 [N, H, W], what is seen there; None if nothing was played yet.
        """
        self._needs_reset[:] = state.needs_reset
        self._starts.noops_left[:] = state.noops_left
        self._retries_left[:] = state.retries_left
        self._episode_returns[:] = state.episode_returns
        self.exploration.load_state(state.exploration)
        if self.guide is not None and state.guide is not None:
            self.guide.load_state(state.guide)
        if not state.has_begun:
            return None
        positions = [
            Position(noop_frames, actions.tolist(), saved, start)
            for noop_frames, actions, saved, start in zip(
                state.noop_frames, state.actions, state.saved, state.start, strict=True
            )
        ]
        states = None if state.states is None else [one.tobytes() for one in state.states]
        return self.games.restore(positions, states)
