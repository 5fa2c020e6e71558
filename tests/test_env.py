"""One game, the real one. Runs on every Python and without torch."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from trajectories import EMULATORS, STAGES, trajectory_hash

from mario_rl.config import EnvConfig
from mario_rl.games.actions import action_names, button_bytes
from mario_rl.games.interface import CLEAR, DEATH, FRAME_SKIP, RUNNING, STALL
from mario_rl.games.mario_game import MarioGame
from mario_rl.games.nes_py import CLASSIC, NesPy
from mario_rl.games.rewards import CLEAR_REWARD, PROGRESS_REWARD_PER_PX, STEP_REWARD

DATA = Path(__file__).parent / "data"
NOOP, RIGHT, RIGHT_A, RIGHT_B, RIGHT_A_B, A, LEFT = range(7)


@pytest.fixture(params=EMULATORS, autouse=True)
def emulator(request, monkeypatch):
    """All games of this module are played on both."""
    if request.param == "fceumm":
        pytest.importorskip("stable_retro")
    monkeypatch.setattr("mario_rl.games.mario_game.resolved", lambda name: request.param)
    return request.param


def poke(game, address, value):
    """Write a byte into the console's memory."""
    emulator = game._emulator
    if isinstance(emulator, NesPy):
        emulator.memory.ram[address] = value
    else:
        emulator._write({address: value})


def recorded_actions(name: str) -> list[int]:
    """Actions of the simple set."""
    return [int(digit) for digit in (DATA / f"{name}.txt").read_text().strip()]


@pytest.fixture(scope="module")
def clearing_actions() -> list[int]:
    """Those that reach the flag of 1-1."""
    return recorded_actions("clear_1-1")


@pytest.fixture(scope="module")
def game():
    game = MarioGame(EnvConfig(stage="1-1", stall_steps=20))
    yield game
    game.close()


@pytest.mark.parametrize("stage", STAGES)
def test_trajectory_is_the_same_on_every_stack(emulator, stage):
    expected = json.loads((DATA / "trajectories.json").read_text())
    assert trajectory_hash(stage, emulator) == expected[emulator][stage]


@pytest.mark.skipif("MARIO_RL_OTHER_PYTHON" not in os.environ, reason="only one stack installed")
def test_the_other_stack_plays_the_same_trajectories():
    script = Path(__file__).parent / "trajectories.py"
    command = [os.environ["MARIO_RL_OTHER_PYTHON"], str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    output = json.loads(result.stdout)
    assert output["classic"] is not CLASSIC
    expected = json.loads((DATA / "trajectories.json").read_text())
    for emulator, hashes in output["hashes"].items():
        assert hashes == expected[emulator]


def test_import_is_silent():
    result = subprocess.run(
        [sys.executable, "-c", "import mario_rl.games.mario_game"], capture_output=True, text=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_frames_are_small_copies(game):
    first, _ = game.reset()
    kept = first.copy()
    for _ in range(5):
        frame, *_ = game.step(RIGHT)
    assert frame.shape == EnvConfig().frame_shape and frame.dtype == np.uint8
    assert np.array_equal(first, kept), "an old frame changed when the game went on"
    assert not np.array_equal(frame, first)


def test_grey_frame_is_the_maximum_of_the_last_two_emulated_frames():
    import cv2

    screens = []
    config = EnvConfig(stage="1-1", view="screen", pixels="grey", show_buttons=False)
    game = MarioGame(config, on_frame=lambda screen: screens.append(screen.copy()))
    game.reset()
    for _ in range(20):
        screens.clear()
        frame, *_ = game.step(RIGHT_A_B)
        assert len(screens) == FRAME_SKIP
        greys = [cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY) for screen in screens[-2:]]
        expected = cv2.resize(np.maximum(*greys), config.frame_shape, interpolation=cv2.INTER_AREA)
        assert np.array_equal(frame, expected)
    game.close()


def red_against_the_backdrop(screen: np.ndarray) -> np.ndarray:
    """Slowly, in floats."""
    red, green, blue = np.moveaxis(screen.astype(float), 2, 0)
    return np.maximum(red, np.maximum(green - green[4, 128], blue - blue[4, 128]))


@pytest.mark.parametrize(("stage", "size"), [("1-1", 42), ("1-2", 42), ("1-1", 84)])
def test_red_frame_is_the_last_emulated_frame_against_the_backdrop(stage, size):
    import cv2

    config = EnvConfig(stage=stage, view="screen", frame_size=size, show_buttons=False)
    game = MarioGame(config)
    frame, _ = game.reset()
    for _ in range(12):
        pixels = red_against_the_backdrop(game.screen())
        expected = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
        assert np.abs(frame - expected).max() <= 0.501
        frame, *_ = game.step(RIGHT_A_B)


def test_mario_stands_out_in_red_and_not_in_grey():
    contrast = {}
    for pixels in ("red", "grey"):
        config = EnvConfig(stage="1-1", view="screen", frame_size=84, pixels=pixels)
        frame, _ = MarioGame(config).reset()
        mario = frame[67:72, 14:18].astype(float)
        contrast[pixels] = abs(mario.mean() - frame[30, 40])
    assert contrast["red"] > 2 * contrast["grey"]


def around(screen: np.ndarray, x: int, y: int) -> np.ndarray:
    """What lies around a point of a screen, by way of a canvas in which everything has room."""
    import cv2

    canvas = np.zeros((1000, 1000), dtype=np.uint8)
    canvas[332:540, 300:556] = screen[32:]
    canvas = canvas[300 + y - 84 : 300 + y + 84, 300 + x - 48 : 300 + x + 144]
    return cv2.resize(canvas, EnvConfig().frame_shape, interpolation=cv2.INTER_AREA)


def test_mario_is_always_in_the_same_place(clearing_actions):
    game = MarioGame(EnvConfig(stage="1-1", show_buttons=False))
    frame, status = game.reset()
    heights = set()
    for action in clearing_actions[:100]:
        ram = game.ram()
        pixels = red_against_the_backdrop(game.screen())
        x = status.x - 256 * ram[0x71A] - ram[0x71C] + 8  # less the left of the screen
        y = 255 - status.y + 16
        assert np.array_equal(frame, around(pixels.astype(np.uint8), x, y))
        heights.add(y)
        frame, *_, status = game.step(action)
    assert max(heights) - min(heights) > 60


@pytest.mark.parametrize(
    ("page", "top", "left", "rows"),
    [(0, 250, 0, slice(42, 84)), (1, 0, 255, slice(42, 84)), (2, 9, 255, slice(0, 42))],
)
def test_beyond_the_game_is_black(page, top, left, rows):
    """Mario above, at the upper right and below: half of the view is left at most."""
    game = MarioGame(EnvConfig(stage="1-1", frame_size=84, show_buttons=False))
    game.reset()
    for address, value in ((0xB5, page), (0x3B8, top), (0x86, left), (0x71C, 0)):
        poke(game, address, value)
    frame = game._observer.frame()
    assert frame.shape == (84, 84) and frame[rows].any()
    frame[rows] = 0
    assert not frame.any()


def test_reward_pays_for_new_furthest_x_only(game):
    _, status = game.reset()
    furthest = status.x
    went_back = False
    for action in [RIGHT_B] * 12 + [LEFT] * 14 + [RIGHT_B] * 6:
        _, reward, terminated, truncated, status = game.step(action)
        assert not terminated and not truncated
        progress = max(0, status.x - furthest)
        went_back |= status.x < furthest
        furthest += progress
        assert status.max_x == furthest
        assert reward == pytest.approx(STEP_REWARD + PROGRESS_REWARD_PER_PX * progress)
    assert went_back


@pytest.mark.parametrize("penalty", [0.0, 7.5])
def test_death_terminates_and_costs(penalty):
    game = MarioGame(EnvConfig(stage="1-1", death_penalty=penalty))
    game.reset()
    for _ in range(100):
        _, reward, terminated, truncated, status = game.step(RIGHT)  # into the first Goomba
        if terminated:
            break
    assert (terminated, truncated, status.outcome) == (True, False, DEATH)
    assert reward == pytest.approx(STEP_REWARD - penalty)
    game.close()


def test_an_extra_life_is_no_death():
    for stage in ("1-1", "full"):
        config = EnvConfig(stage=stage)
        game = MarioGame(config)
        game.reset()
        game.step(NOOP)
        poke(game, 0x075A, game.ram()[0x075A] + 1)
        _, reward, terminated, _, status = game.step(NOOP)
        assert (reward, terminated, status.outcome) == (STEP_REWARD, False, RUNNING)
        while not terminated:
            x = status.x
            _, reward, terminated, _, status = game.step(RIGHT)
        assert reward == pytest.approx(STEP_REWARD - config.death_penalty)
        assert status.x >= x > 200 and status.time_left < 400, "told of the next life"
        game.close()


def test_stall_truncates(game):
    game.reset()
    game.step(RIGHT_B)
    steps, truncated = 0, False
    while not truncated and steps < 30:
        _, reward, terminated, truncated, status = game.step(LEFT)
        steps += 1
    assert (terminated, truncated, status.outcome) == (False, True, STALL)
    assert steps == pytest.approx(20, abs=3)
    assert reward == STEP_REWARD


# In 1-2 the screen comes to the Warp Zone before Mario enters the pipe to the flag.
@pytest.mark.parametrize(("stage", "noop_frames"), [(1, 0), (2, 2)])
def test_flag_clears_a_single_stage(stage, noop_frames):
    game = MarioGame(EnvConfig(stage=f"1-{stage}"))
    game.reset(noop_frames)
    for action in recorded_actions(f"clear_1-{stage}"):
        _, reward, terminated, truncated, status = game.step(action)
    assert (terminated, truncated, status.outcome) == (True, False, CLEAR)
    assert (status.world, status.stage, status.stages_cleared) == (1, stage, 1)
    assert reward == pytest.approx(STEP_REWARD + CLEAR_REWARD)
    assert status.max_x > 3100
    game.close()


def test_a_warp_zone_neither_pays_nor_saves():
    game = MarioGame(EnvConfig(stage="1-2"), save_points=True)
    game.reset()
    last_save_x = 0
    for action in recorded_actions("warp_zone_1-2"):
        _, reward, terminated, _, status = game.step(action)
        assert not terminated
        assert status.x < 2700 or reward == STEP_REWARD
        if status.saved:
            last_save_x = status.x
    assert status.x > 3000 and status.max_x < 2700 and 2300 < last_save_x < 2700
    game.close()


def test_full_game_runs_on_after_the_flag_and_ends_with_one_life(clearing_actions):
    game = MarioGame(EnvConfig(stage="full"))
    game.reset()
    rewards = []
    for action in clearing_actions:
        _, reward, terminated, truncated, status = game.step(action)
        rewards.append(reward)
        assert not terminated and not truncated
    for _ in range(60):  # until the next stage has begun
        if status.stages_cleared:
            break
        _, reward, terminated, truncated, status = game.step(NOOP)
        rewards.append(reward)
    assert (status.world, status.stage, status.stages_cleared) == (1, 2, 1)
    assert max(rewards) > CLEAR_REWARD - 1
    assert status.outcome == RUNNING and status.max_x < 200
    for _ in range(400):
        _, _, terminated, truncated, status = game.step(RIGHT)
        if terminated or truncated:
            break
    assert terminated and status.outcome == DEATH
    assert (status.world, status.stage) == (1, 2)
    _, status = game.reset()
    assert (status.world, status.stage, status.stages_cleared) == (1, 1, 0)
    game.close()


def test_a_maze_that_sends_mario_back_is_no_progress():
    """In 4-4 it does so from before the fourth page: the console's page is then 255."""
    game = MarioGame(EnvConfig(stage="4-4"))
    game.reset(25)
    positions = []
    for action in recorded_actions("loop_4-4"):
        *_, status = game.step(action)
        positions.append(status.x)
    game.close()
    assert status.outcome == RUNNING
    assert max(positions) == status.max_x and 950 < status.max_x < 1030
    assert status.x < 100 and 0 in positions[-12:]


def test_noop_frames_pass_before_the_first_decision():
    screens = []
    # With the clock, which alone moves.
    config = EnvConfig(stage="1-1", view="screen", show_buttons=False)
    game = MarioGame(config, on_frame=lambda screen: screens.append(1))
    at_once, _ = game.reset()
    screens.clear()
    later, _ = game.reset(noop_frames=30)
    assert len(screens) == 30
    assert not np.array_equal(at_once, later)
    again, _ = game.reset()
    assert np.array_equal(at_once, again)
    game.close()


def test_closing_twice_is_allowed():
    game = MarioGame(EnvConfig(stage="1-1"))
    game.close()
    game.close()


def test_action_sets():
    """A model's action keeps its meaning: the buttons of gym-super-mario-bros."""
    from gym_super_mario_bros import actions
    from nes_py.wrappers import JoypadSpace

    stock = {
        "right": actions.RIGHT_ONLY,
        "simple": actions.SIMPLE_MOVEMENT,
        "complex": actions.COMPLEX_MOVEMENT,
    }
    bits = {**JoypadSpace._button_map, "NOOP": 0}
    for action_set, buttons in stock.items():
        assert action_names(action_set) == ["+".join(names) for names in buttons]
        assert button_bytes(action_set) == [sum(map(bits.get, names)) for names in buttons]
    assert action_names("right") == ["NOOP", "right", "right+A", "right+B", "right+A+B"]
    assert len(action_names("simple")) == 7
    assert len(action_names("complex")) == 12


def test_held_buttons_reach_the_game(game):
    game.reset()
    y = [game.step(A)[4].y for _ in range(4)]
    assert y[-1] > y[0]
    game.reset()
    slow = [game.step(RIGHT)[4].x for _ in range(15)][-1]
    game.reset()
    fast = [game.step(RIGHT_B)[4].x for _ in range(15)][-1]
    assert fast > slow


@pytest.mark.parametrize(
    ("view", "size", "rows"), [("mario", 42, 3), ("mario", 84, 6), ("screen", 42, 5)]
)
def test_what_is_held_is_shown_at_the_top(view, size, rows):
    config = EnvConfig(stage="1-1", view=view, frame_size=size)
    shows, plain = (MarioGame(replace(config, show_buttons=show)) for show in (True, False))
    assert not shows.reset()[0][:rows].any()
    plain.reset()
    for action in [RIGHT_A, RIGHT_B, NOOP, RIGHT_A_B, A, RIGHT]:
        frame, expected = shows.step(action)[0], plain.step(action)[0]
        a, b = np.hsplit(frame[:rows], 2)
        assert (a == (255 if action in (A, RIGHT_A, RIGHT_A_B) else 0)).all()
        assert (b == (255 if action in (RIGHT_B, RIGHT_A_B) else 0)).all()
        assert np.array_equal(frame[rows:], expected[rows:])


def test_without_that_two_states_look_alike():
    """A held over a landing does not make Mario jump again."""
    holds, releases = (MarioGame(EnvConfig(stage="1-1")) for _ in range(2))
    frames = []
    for game, last in ((holds, RIGHT_A), (releases, RIGHT)):
        game.reset()
        for _ in range(12):
            game.step(RIGHT_A)
        frames.append(game.step(last)[0])
    held, released = frames
    rows = 3  # that show the buttons
    assert np.array_equal(held[rows:], released[rows:])
    assert not np.array_equal(held, released)
    heights = [game.step(RIGHT_A)[-1].y for game in (holds, releases)]
    assert heights[0] == 79 < heights[1]


def play_to_save_point(game, seed=4):
    """Random play from where it stands, until there is a save point or the episode ends."""
    rng = np.random.default_rng(seed)
    while True:
        action = rng.choice([RIGHT_B, RIGHT_A_B, RIGHT_A_B, RIGHT_A_B, RIGHT])
        *_, terminated, truncated, status = game.step(int(action))
        if status.saved or terminated or truncated:
            return status


@pytest.mark.parametrize("stage", ["1-1", "4-2", "full"])
def test_reset_after_save_points_leads_to_the_very_same_start(stage):
    """Also where the console remembers: 4-2 would begin in another room."""
    game, fresh = (MarioGame(EnvConfig(stage=stage), save_points=saves) for saves in (True, False))
    game.reset()
    fresh.reset()
    assert play_to_save_point(game).saved
    game.reset()
    assert game.ram() == fresh.ram() and np.array_equal(game.screen(), fresh.screen())
    for action in [RIGHT_A_B, RIGHT_B, RIGHT_A_B] * 4:
        assert all(map(np.array_equal, game.step(action), fresh.step(action)))
        assert game.ram() == fresh.ram()


def test_retry_leads_to_the_last_save_point():
    game = MarioGame(EnvConfig(stage="1-1"), save_points=True)
    _, status = game.reset()
    for _ in range(2):
        last_x, status = status.x, play_to_save_point(game)
        assert status.saved and status.x >= last_x + 160 and game.ram()[0x1D] == 0
    ram, expected = game.ram(), status._replace(saved=False, max_x=status.x)
    for _ in range(10):
        assert not game.step(RIGHT_B)[-1].saved
    assert game.ram() != ram
    for _ in range(2):
        _, status = game.retry()
        assert game.ram() == ram and status == expected
        _, reward, *_, status = game.step(RIGHT_B)
        progress = status.x - expected.x
        assert reward == pytest.approx(STEP_REWARD + PROGRESS_REWARD_PER_PX * progress)
    game.close()


# Each ends with the emulator's frame where the game has read only some of the buttons.
@pytest.mark.parametrize(
    ("noop_frames", "actions"),
    [
        (11, [RIGHT_B] + [RIGHT_A_B] * 4 + [RIGHT] * 8 + [RIGHT_B] * 3),
        (11, [RIGHT_A] * 8 + [RIGHT_B] * 2 + [RIGHT_A_B] * 6 + [RIGHT] * 3),
    ],
)
def test_what_follows_a_save_point_does_not_depend_on_what_was_played_before(noop_frames, actions):
    game = MarioGame(EnvConfig(stage="1-1"))
    game.reset(noop_frames)
    for action in actions:
        game.step(action)
    game.save()
    game.step(RIGHT)
    expected, screen = game.ram(), game.screen()
    for played in ([], [A] * 4 + [LEFT] * 4, [NOOP] * 9):
        for action in played:
            game.step(action)
        game.retry()
        game.step(RIGHT)
        assert game.ram() == expected and np.array_equal(game.screen(), screen)
    game.close()


def test_a_save_point_is_made_also_where_a_game_that_began_later_would_stall():
    """Otherwise the actions since the reset would not tell where they are."""
    game = MarioGame(EnvConfig(stage="1-1", stall_steps=1), save_points=True)
    game.reset()
    actions = [RIGHT_A_B] * 10 + [RIGHT_B] * 4 + [RIGHT_A_B] * 7 + [RIGHT_B] * 2 + [LEFT] * 4
    statuses = [game.step(action)[-1] for action in actions]
    assert [status.saved for status in statuses] == [False] * (len(actions) - 1) + [True]
    assert statuses[-1].outcome == STALL
    game.close()


def test_no_save_points_unless_asked_for(game):
    game.reset()
    for action in [RIGHT_A_B] * 40:
        *_, terminated, _, status = game.step(action)
        assert not status.saved
        if terminated:
            break
    assert status.x > 240
