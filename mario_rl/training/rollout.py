"""The training games: what each is told to do, and what is going on in it.

Some of them do not begin anew after a death or a stall but go on from their last save point, so
that they get as far as the policy and its exploration lead, and practise longest what is hardest (a
simple form of the returns of Go-Explore, Ecoffet et al. 2021, and of the resets of Salimans & Chen
2018). The others play from the start, as in evaluations.
"""

from typing import Any, NamedTuple

import numpy as np

from mario_rl.agent.exploration import Exploration
from mario_rl.config import MAX_NOOP_FRAMES, ExplorationConfig
from mario_rl.games.mario_game import CLEAR, FRAME_SKIP
from mario_rl.games.workers import NOOP, RESET, RETRY, Envs, Position

# A save point may be one from which nobody survives, or the clock may run out soon.
MAX_RETRIES = 16

_STATE = ("needs_reset", "noops_left", "retries_left", "episode_returns")


class Episode(NamedTuple):
    """One that has just ended."""

    episode_return: float  # undiscounted
    length_steps: int
    start_step: int  # how many decisions led to the save point where it began; 0: the start


class Step(NamedTuple):
    """What one step of N games has brought."""

    frames: np.ndarray  # uint8 [N, 84, 84]
    actions: np.ndarray  # int64 [N], negative in a game in which an episode is being begun
    records: np.ndarray  # RECORD_DTYPE [N]
    ended: dict[int, Episode]  # by the number of the game


class Rollout:
    """N games, in lockstep. A new one begins all of them anew."""

    def __init__(self, envs: Envs, config: ExplorationConfig, seed: np.random.SeedSequence) -> None:
        self.envs = envs
        self.exploration = Exploration(config, seed)
        num_envs = envs.num_envs
        # Where `_needs_reset`, the next command begins an episode, and then `_noops_left` emulated
        # frames pass before the first decision.
        self._needs_reset = np.ones(num_envs, dtype=np.bool_)
        self._noops_left = np.zeros(num_envs, dtype=np.int64)
        self._retries_left = np.zeros(num_envs, dtype=np.int64)  # from the last save point
        self._episode_returns = np.zeros(num_envs)
        self._commands = self._arguments = np.zeros(num_envs, dtype=np.int64)

    def step_async(self, q_values: np.ndarray, env_steps: int) -> None:
        """Begin a step: epsilon-greedy actions; retries and resets, and after these a random number
        of no-op frames.

        Args:
            q_values: float32 [N, num_actions].
        """
        commands = self.exploration.choose(q_values, env_steps, self._needs_reset)
        noop_frames = self.exploration.rng.integers(MAX_NOOP_FRAMES + 1, size=len(commands))
        retries = self._needs_reset & (self._retries_left > 0)
        resets = self._needs_reset & ~retries
        self._retries_left -= retries
        # A step's worth of no-op frames at a time, lest the other games wait for this one.
        self._noops_left = np.where(resets, noop_frames, self._noops_left)
        commands[self._noops_left > 0] = NOOP
        commands[resets] = RESET
        commands[retries] = RETRY
        self._commands, self._arguments = commands, np.minimum(self._noops_left, FRAME_SKIP)
        self.envs.step_async(self._commands, self._arguments)

    def step_wait(self) -> Step:
        """Finish it."""
        frames, records = self.envs.step_wait()
        commands = self._commands
        begins, plays = (commands == RESET) | (commands == RETRY), commands >= 0
        self._needs_reset[begins] = False
        self._noops_left -= np.where(commands == NOOP, self._arguments, 0)
        self._episode_returns = np.where(begins, 0.0, self._episode_returns + records["reward"])
        self._retries_left[plays & records["saved"]] = MAX_RETRIES
        self._retries_left[plays & (records["outcome"] == CLEAR)] = 0
        self._needs_reset[plays & (records["terminated"] | records["truncated"])] = True
        ended = {}
        for i in np.flatnonzero(self._needs_reset).tolist():
            _, actions, _, start = self.envs.positions[i]
            ended[i] = Episode(float(self._episode_returns[i]), len(actions) - start, start)
        return Step(frames, commands, records, ended)

    def state_dict(self) -> dict[str, Any]:
        positions = self.envs.positions
        return {
            **{name: getattr(self, f"_{name}") for name in _STATE},
            "exploration": self.exploration.state_dict(),
            "noop_frames": [position.noop_frames for position in positions],
            "actions": [np.array(position.actions, dtype=np.uint8) for position in positions],
            "saved": [position.saved for position in positions],
            "start": [position.start for position in positions],
        }

    def load_state_dict(self, state: dict[str, Any]) -> np.ndarray | None:
        """Bring the games to where they were.

        Returns:
            uint8 [N, 84, 84], what is seen there; None if nothing was played yet.
        """
        for name in _STATE:
            getattr(self, f"_{name}")[:] = state[name]
        self.exploration.load_state_dict(state["exploration"])
        if self._needs_reset.all() and not any(map(len, state["actions"])):
            return None
        positions = [
            Position(noop_frames, actions.tolist(), saved, start)
            for noop_frames, actions, saved, start in zip(
                *(state[name] for name in Position._fields), strict=True
            )
        ]
        return self.envs.restore(positions)
