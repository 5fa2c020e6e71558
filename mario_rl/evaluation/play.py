"""How well a policy plays: episodes with a fixed policy, and what they amount to.

The protocol: greedy play with epsilon 0.01, each episode starting after a uniformly drawn 0 to 30
no-op frames (Mnih et al. 2015) at the true start. The game itself is deterministic, so without
both, N episodes would be one sample repeated. Each episode has a random generator of its own, so
that its result does not depend on which environment plays it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mario_rl.config import EVALUATION_EPSILON, FRAME_SHAPE, MAX_NOOP_FRAMES, STACK
from mario_rl.games.mario_game import FRAME_SKIP, OUTCOMES
from mario_rl.games.workers import IDLE, NOOP, RESET, Envs, Position


@dataclass
class EpisodeResult:
    """One episode of a fixed policy."""

    position: Position  # its no-op frames and actions, from which it can be played again
    episode_return: float = 0.0
    max_x: int = 0
    world: int = 0
    stage: int = 0
    stages_cleared: int = 0
    game_score: int = 0
    coins: int = 0
    time_left: int = 0
    outcome: str = "running"
    x: list[int] = field(default_factory=list)  # after each decision, pixels
    y: list[int] = field(default_factory=list)

    def observe(self, record: np.ndarray) -> None:
        """Take in the record (RECORD_DTYPE) of one decision."""
        self.episode_return += float(record["reward"])
        for name in ("max_x", "world", "stage", "stages_cleared", "game_score", "coins",
                     "time_left"):  # fmt: skip
            setattr(self, name, int(record[name]))
        self.outcome = OUTCOMES[record["outcome"]]
        self.x.append(int(record["x"]))
        self.y.append(int(record["y"]))

    def is_over(self, max_steps: int | None) -> bool:
        """Whether the game has ended, or is cut off after so many decisions."""
        return self.outcome != "running" or len(self.x) == max_steps


@dataclass
class _Player:
    """An episode that is being played."""

    number: int
    result: EpisodeResult
    rng: np.random.Generator
    noops_left: int  # emulated frames before the first decision


class FrameStacks:
    """The observations of N games, uint8 [N, 4, 84, 84], oldest frame first."""

    def __init__(self, num_envs: int) -> None:
        self.obs = np.zeros((num_envs, STACK, *FRAME_SHAPE), dtype=np.uint8)

    def append(self, frames: np.ndarray, is_first: np.ndarray) -> None:
        """Add frames, uint8 [N, 84, 84]; where an episode begins, its first fills the stack."""
        self.obs[:, :-1] = self.obs[:, 1:]
        self.obs[:, -1] = frames
        self.obs[is_first] = frames[is_first][:, None]


def play_episodes(
    q_values: Callable[[np.ndarray], np.ndarray],
    envs: Envs,
    episodes: int,
    seed: int,
    *,
    epsilon: float = EVALUATION_EPSILON,
    max_noop_frames: int = MAX_NOOP_FRAMES,
    max_steps: int | None = None,
    first_episode: int = 0,
    on_end: Callable[[int, EpisodeResult], None] = lambda number, result: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[EpisodeResult]:
    """Play episodes, as many at a time as there are environments.

    Args:
        q_values: float32 [N, num_actions] of observations, uint8 [N, 4, 84, 84].
        max_steps: cut an episode off after so many decisions; its outcome stays "running".
        first_episode: the number of the first: its random generator is that of `seed` and this.
        on_end: told of each episode, by its number, when it ends or is left unfinished, but for
            those without a decision.

    Returns:
        The results in the order of the episodes' numbers. If `should_stop` ends it early these are
        the episodes begun by then, the unfinished with the outcome "running".
    """
    results: list[EpisodeResult] = []
    players: list[_Player | None] = [None] * envs.num_envs
    stacks = FrameStacks(envs.num_envs)
    commands = np.full(envs.num_envs, IDLE)
    arguments = np.zeros(envs.num_envs, dtype=np.int32)
    while not should_stop():
        q = q_values(stacks.obs)
        for i, player in enumerate(players):
            commands[i] = IDLE
            if player is None and len(results) < episodes:
                number = first_episode + len(results)
                rng = np.random.default_rng([seed, number])
                noop_frames = int(rng.integers(max_noop_frames + 1))
                results.append(EpisodeResult(Position(noop_frames, [])))
                players[i] = _Player(number, results[-1], rng, noop_frames)
                commands[i] = RESET
            elif player is not None and player.noops_left > 0:
                commands[i], arguments[i] = NOOP, min(player.noops_left, FRAME_SKIP)
                player.noops_left -= int(arguments[i])
            elif player is not None:
                explore = player.rng.random() < epsilon
                random_action = player.rng.integers(q.shape[1])
                commands[i] = random_action if explore else q[i].argmax()
                player.result.position.actions.append(int(commands[i]))
        if (commands == IDLE).all():
            return results
        envs.step_async(commands, arguments)
        frames, records = envs.step_wait()
        stacks.append(frames, (commands == RESET) | (commands == NOOP))
        for i in np.flatnonzero(commands >= 0):
            player = players[i]
            assert player is not None
            player.result.observe(records[i])
            if player.result.is_over(max_steps):
                players[i] = None
                on_end(player.number, player.result)
    for player in players:
        if player is not None and player.result.x:
            on_end(player.number, player.result)
    return results
