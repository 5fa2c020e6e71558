"""Episodes of a fixed policy.

The protocol: greedy play with epsilon 0.01, each episode starting after a uniformly drawn 0 to 30
no-op frames (Mnih et al. 2015) at the true start. The game itself is deterministic: without both, N
episodes would be one sample repeated. Each episode has its own random generator, so its result does
not depend on which game plays it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mario_rl.config import EVALUATION_EPSILON, MAX_NOOP_FRAMES, STACK
from mario_rl.games.episode_start import EpisodeStarts
from mario_rl.games.interface import IDLE, RUNNING, Episode, Games, Position
from mario_rl.replay.frame_ring import FrameRing


@dataclass(frozen=True)
class PlayedEpisode:
    """One episode of a fixed policy, with Mario's positions."""

    episode: Episode
    position: Position  # its no-op frames and actions, from which it can be played again
    x: list[int]  # after each decision, pixels
    y: list[int]
    finished: bool = True  # to its end or `max_steps`; False if `should_stop` came before


class _Player:
    """An episode that is being played."""

    def __init__(self, seed: int, number: int, max_noop_frames: int) -> None:
        self.number = number
        self._rng = np.random.default_rng([seed, number])
        self.position = Position(int(self._rng.integers(max_noop_frames + 1)), [])
        self._records: list[np.void] = []  # RECORD_DTYPE

    def decide(self, q_values: np.ndarray, epsilon: float) -> int:
        """An epsilon-greedy action, given float32 [num_actions]."""
        explores = self._rng.random() < epsilon
        random_action = self._rng.integers(len(q_values))
        action = int(random_action if explores else q_values.argmax())
        self.position.actions.append(action)
        return action

    def observe(self, record: np.void) -> None:
        """Take in the record of a decision."""
        self._records.append(record)

    @property
    def has_played(self) -> bool:
        return bool(self._records)

    def so_far(self, finished: bool) -> PlayedEpisode:
        """The episode so far."""
        episode_return = sum(float(record["reward"]) for record in self._records)
        return PlayedEpisode(
            Episode.of(self._records[-1], episode_return, len(self._records)),
            self.position,
            x=[int(record["x"]) for record in self._records],
            y=[int(record["y"]) for record in self._records],
            finished=finished,
        )


def play_episodes(
    q_values: Callable[[np.ndarray | torch.Tensor], np.ndarray],
    games: Games,
    episodes: int,
    seed: int,
    *,
    epsilon: float = EVALUATION_EPSILON,
    max_noop_frames: int = MAX_NOOP_FRAMES,
    max_steps: int | None = None,
    first_episode: int = 0,
    on_end: Callable[[int, PlayedEpisode], None] = lambda number, played: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[PlayedEpisode]:
    """Play episodes, as many at a time as there are games.

    Args:
        q_values: float32 [N, num_actions] of observations, uint8 [N, 4, H, W].
        max_steps: cut an episode off after this many decisions; its outcome stays "running".
        first_episode: number of the first episode. Seed and number determine its random generator.
        on_end: called with the number and the episode when one ends or is left unfinished.

    Returns:
        The episodes in the order of their numbers. If `should_stop` ends play early, unfinished
        episodes have the outcome "running", and those without a decision are left out.
    """
    played: dict[int, PlayedEpisode] = {}
    players: dict[int, _Player] = {}  # by the number of the game
    begun = 0
    starts = EpisodeStarts(games.num_envs)
    ring = FrameRing(STACK, games.num_envs, games.frame_shape)

    def end(player: _Player, finished: bool) -> None:
        played[player.number] = player.so_far(finished)
        on_end(player.number, played[player.number])

    while not should_stop():
        commands = np.full(games.num_envs, IDLE)
        deciding = [i for i in sorted(players) if starts.noops_left[i] == 0]
        if deciding:
            q = q_values(ring.stacks(ring.newest_slots()))
            for i in deciding:
                commands[i] = players[i].decide(q[i], epsilon)
        resets = np.zeros(games.num_envs, dtype=np.bool_)
        noop_frames = np.zeros(games.num_envs, dtype=np.int64)
        for i in range(games.num_envs):
            if i not in players and begun < episodes:
                players[i] = _Player(seed, first_episode + begun, max_noop_frames)
                resets[i], noop_frames[i] = True, players[i].position.noop_frames
                begun += 1
        step_frames = starts.command(commands, resets, noop_frames)
        if (commands == IDLE).all():
            break
        games.step_async(commands, step_frames)
        frames, records = games.step_wait()
        ring.append(frames, commands < 0)
        for i in deciding:
            players[i].observe(records[i])
            ended = records[i]["outcome"] != RUNNING
            if ended or len(players[i].position.actions) == max_steps:
                end(players.pop(i), finished=True)
    for _, player in sorted(players.items()):
        if player.has_played:
            end(player, finished=False)
    return [played[number] for number in sorted(played)]
