"""The interface of a game, and of many games side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from mario_rl.errors import UserError

FRAME_SKIP = 4  # emulated frames of a decision
FRAMES_PER_SECOND = 60
SCREEN_SHAPE = (240, 256, 3)

RUNNING, CLEAR, DEATH, TIME_UP, STALL = range(5)
OUTCOMES = ("running", "clear", "death", "time_up", "stall")

# The commands of a step, besides the actions 0, 1, ...
RESET = -1  # begin an episode at the start
NOOP = -2  # let no-op frames pass; only between a RESET and the first action
IDLE = -3  # do nothing
RETRY = -4  # begin an episode at the last save point


class Status(NamedTuple):
    """How an episode stands after a decision. When Mario has died x, y and time_left are those of
    the last decision in which he lived."""

    x: int  # Mario's, pixels from the left of the stage
    y: int  # pixels from the bottom of the screen
    max_x: int  # the furthest in this stage and episode
    world: int
    stage: int
    stages_cleared: int
    game_score: int
    coins: int
    time_left: int  # on the game's clock
    outcome: int  # an index into OUTCOMES
    saved: bool  # whether `retry` would lead here


# What a step returns besides the frame: reward, terminated, truncated, and the `Status`
RECORD_DTYPE = np.dtype(
    [
        ("reward", np.float32),
        ("terminated", np.bool_),
        ("truncated", np.bool_),
        *((name, np.bool_ if kind is bool else np.int32)
          for name, kind in Status.__annotations__.items()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Episode:
    """The result of an episode, as it is recorded."""

    episode_return: float  # undiscounted sum of the rewards
    length_steps: int  # decisions
    max_x: int  # the furthest in the furthest stage, pixels
    world: int  # the furthest stage
    stage: int
    stages_cleared: int
    game_score: int
    coins: int
    time_left: int  # on the game's clock
    outcome: str  # one of OUTCOMES
    start_step: int = 0  # decisions that led to the save point where it began; 0: the start

    @classmethod
    def of(
        cls, record: np.void, episode_return: float, length_steps: int, start_step: int = 0
    ) -> "Episode":
        """From the record (RECORD_DTYPE) of its last decision."""
        return cls(
            episode_return=float(episode_return),
            length_steps=length_steps,
            max_x=int(record["max_x"]),
            world=int(record["world"]),
            stage=int(record["stage"]),
            stages_cleared=int(record["stages_cleared"]),
            game_score=int(record["game_score"]),
            coins=int(record["coins"]),
            time_left=int(record["time_left"]),
            outcome=OUTCOMES[record["outcome"]],
            start_step=start_step,
        )


class Game(Protocol):
    """One game, with the methods of a Gymnasium environment and a `Status` as the info.

    It is deterministic: the no-op frames after the reset and the actions since then determine it.
    """

    frame_shape: tuple[int, int]  # height and width, H and W, of its frames

    def reset(self, noop_frames: int = 0) -> tuple[np.ndarray, Status]:
        """Begin an episode at the start, and `noop`. The frame is uint8 [H, W]."""

    def noop(self, frames: int) -> tuple[np.ndarray, Status]:
        """Let emulated frames pass between the reset and the first decision."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, Status]:
        """Make a decision: frame, reward, terminated, truncated, status."""

    def save(self) -> None:
        """Make this the save point. There is one, until the next `reset`."""

    def retry(self) -> tuple[np.ndarray, Status]:
        """Begin an episode at the save point."""

    def state(self) -> bytes | None:
        """All that its future depends on; None if it cannot leave the process."""

    def load(self, state: bytes) -> np.ndarray:
        """Go to a `state`; returns the frame there, uint8 [H, W].

        Raises:
            ValueError: if it is not a state of this game.
        """

    def close(self) -> None: ...


class Position(NamedTuple):
    """What was done in a game since its reset. The game is deterministic, so it stands there."""

    noop_frames: int
    actions: list[int]
    saved: int = 0  # how many of the actions lie before the last save point; 0: there is none
    start: int = 0  # how many lie before the beginning of the episode; 0: it began at the reset


class Games(Protocol):
    """N games in lockstep.

    The classes in `registry.BACKENDS` are all made alike:

        Backend(config: EnvConfig, num_envs: int, report: Callable[[str], None],
                num_retrying: int = 0)

    The first `num_retrying` of the `num_envs` games make save points. `report` is called with one
    line when something failed and was repaired, such as a worker that died. What a backend returns
    depends only on its commands, never on timing or on failures. With `states` and `positions` it
    brings lost games back. `execute`, `advance`, `states_of` and `bring` do most of the
    work.
    """

    num_envs: int
    frame_shape: tuple[int, int]  # as in `Game`
    positions: list[Position]  # where the games stand; a reset begins a new list of actions

    def step_async(self, commands: np.ndarray, noop_frames: np.ndarray) -> None:
        """Begin a step: for each game an action or one of RESET, NOOP, IDLE and RETRY, int [N],
        and how many frames a NOOP lasts, int [N]."""

    def step_wait(self) -> tuple[np.ndarray, np.ndarray]:
        """Finish it: frames, uint8 [N, H, W], and records, RECORD_DTYPE [N], both copies. Those
        of an IDLE game mean nothing.

        Raises:
            WorkerDied: if the games cannot continue.
        """

    def states(self) -> list[bytes] | None:
        """Where the games stand, after a step; None if the emulator cannot say."""

    def restore(
        self, positions: Sequence[Position], states: Sequence[bytes] | None = None
    ) -> np.ndarray:
        """Bring every game to a position; returns the frames there, uint8 [N, H, W].

        Args:
            states: of the games there, which takes no time. Without them the games are played
                again.

        Raises:
            UserError: if the positions or states are not those of such games.
            WorkerDied: if the games cannot continue.
        """

    def close(self) -> None:
        """Stop the games, even in the middle of a step. Whoever made them must close them."""


def execute(game: Game, command: int, noop_frames: int) -> tuple[np.ndarray, tuple]:
    """Carry out a command except IDLE: the frame, uint8 [H, W], and a row of RECORD_DTYPE."""
    if command >= 0:
        frame, reward, terminated, truncated, status = game.step(command)
        return frame, (reward, terminated, truncated, *status)
    if command == RESET:
        frame, status = game.reset()
    elif command == RETRY:
        frame, status = game.retry()
    else:
        frame, status = game.noop(noop_frames)
    return frame, (0.0, False, False, *status)


def bring(game: Game, position: Position, state: bytes | None) -> np.ndarray:
    """Bring a game to a position: by its state or, without one, by playing it again.

    Returns:
        The frame there, uint8 [H, W].

    Raises:
        UserError: if the position or the state, which comes from a checkpoint, is not one of this
            game.
    """
    if state is None:
        return replay(game, position)
    try:
        return game.load(state)
    except ValueError as error:
        raise UserError(
            f"the checkpoint cannot be restored: {error}; resume with the versions that run.json "
            "names"
        ) from None


def states_of(games: Sequence[Game]) -> list[bytes] | None:
    """Where the games stand; None if one cannot say."""
    states = [game.state() for game in games]
    return None if None in states else states  # type: ignore[return-value]


def replay(game: Game, position: Position) -> np.ndarray:
    """Bring a game to a position; returns the frame there, uint8 [H, W].

    Raises:
        UserError: if the game ends on the way: the position comes from a checkpoint, and is not one
            of this game.
    """
    frame, _ = game.reset(position.noop_frames)
    for number, action in enumerate(position.actions, 1):
        frame, _, terminated, _, _ = game.step(action)
        if terminated and (number < len(position.actions) or number == position.start):
            raise UserError(
                f"the checkpoint cannot be restored: a game ends after {number} of its "
                f"{len(position.actions)} actions; resume with the versions that run.json names"
            )
        if number == position.start:
            game.save()
            frame, _ = game.retry()
    return frame


def advance(
    positions: list[Position], commands: np.ndarray, noop_frames: np.ndarray, records: np.ndarray
) -> None:
    """Update the positions after a step."""
    for i, command in enumerate(commands.tolist()):
        before = positions[i]
        if command == RESET:
            positions[i] = Position(0, [])
        elif command == NOOP:
            positions[i] = before._replace(noop_frames=before.noop_frames + int(noop_frames[i]))
        elif command == RETRY:
            kept = before.actions[: before.saved]
            positions[i] = before._replace(actions=kept, start=before.saved)
        elif command != IDLE:
            before.actions.append(command)
            if records[i]["saved"]:
                positions[i] = before._replace(saved=len(before.actions))
