"""The environment on the real game. Runs on every Python and without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trajectories import STAGES, trajectory_hash

from mario_rl.config import EnvConfig
from mario_rl.games.mario_game import (
    BUTTON_ROWS,
    CLASSIC,
    CLEAR,
    CLEAR_REWARD,
    DEATH,
    FRAME_SKIP,
    PROGRESS_REWARD_PER_PX,
    RUNNING,
    STALL,
    STEP_REWARD,
    MarioEnv,
    action_names,
)

DATA = Path(__file__).parent / "data"
NOOP, RIGHT, RIGHT_A, RIGHT_B, RIGHT_A_B, A, LEFT = range(7)


def recorded_actions(name: str) -> list[int]:
    """Actions of the simple set."""
    return [int(digit) for digit in (DATA / f"{name}.txt").read_text().strip()]


@pytest.fixture(scope="module")
def clearing_actions() -> list[int]:
    """Those that reach the flag of 1-1."""
    return recorded_actions("clear_1-1")


@pytest.fixture(scope="module")
def env():
    env = MarioEnv(EnvConfig(stage="1-1", stall_steps=20))
    yield env
    env.close()


@pytest.mark.parametrize("stage", STAGES)
def test_trajectory_is_the_same_on_every_stack(stage):
    expected = json.loads((DATA / "trajectories.json").read_text())
    assert trajectory_hash(stage) == expected[stage]


@pytest.mark.skipif("MARIO_RL_OTHER_PYTHON" not in os.environ, reason="only one stack installed")
def test_the_other_stack_plays_the_same_trajectories():
    script = Path(__file__).parent / "trajectories.py"
    command = [os.environ["MARIO_RL_OTHER_PYTHON"], str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    output = json.loads(result.stdout)
    assert output["classic"] is not CLASSIC
    assert output["hashes"] == json.loads((DATA / "trajectories.json").read_text())


def test_import_is_silent():
    result = subprocess.run(
        [sys.executable, "-c", "import mario_rl.games.mario_game"], capture_output=True, text=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_frames_are_small_copies(env):
    first, _ = env.reset()
    kept = first.copy()
    for _ in range(5):
        frame, *_ = env.step(RIGHT)
    assert frame.shape == (84, 84) and frame.dtype == np.uint8
    assert np.array_equal(first, kept), "an old frame changed when the game went on"
    assert not np.array_equal(frame, first)


def test_grey_frame_is_the_maximum_of_the_last_two_emulated_frames():
    import cv2

    screens = []
    config = EnvConfig(stage="1-1", view="screen", pixels="grey", show_buttons=False)
    env = MarioEnv(config, on_frame=lambda screen: screens.append(screen.copy()))
    env.reset()
    for _ in range(20):
        screens.clear()
        frame, *_ = env.step(RIGHT_A_B)
        assert len(screens) == FRAME_SKIP
        greys = [cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY) for screen in screens[-2:]]
        expected = cv2.resize(np.maximum(*greys), (84, 84), interpolation=cv2.INTER_AREA)
        assert np.array_equal(frame, expected)
    env.close()


def red_against_the_backdrop(screen: np.ndarray) -> np.ndarray:
    """Slowly, in floats."""
    red, green, blue = np.moveaxis(screen.astype(float), 2, 0)
    return np.maximum(red, np.maximum(green - green[4, 128], blue - blue[4, 128]))


@pytest.mark.parametrize("stage", ["1-1", "1-2"])
def test_red_frame_is_the_last_emulated_frame_against_the_backdrop(stage):
    import cv2

    env = MarioEnv(EnvConfig(stage=stage, view="screen", show_buttons=False))
    frame, _ = env.reset()
    for _ in range(12):
        pixels = red_against_the_backdrop(env.screen())
        expected = cv2.resize(pixels, (84, 84), interpolation=cv2.INTER_AREA)
        assert np.abs(frame - expected).max() <= 0.501
        frame, *_ = env.step(RIGHT_A_B)


def test_mario_stands_out_in_red_and_not_in_grey():
    contrast = {}
    for pixels in ("red", "grey"):
        frame, _ = MarioEnv(EnvConfig(stage="1-1", view="screen", pixels=pixels)).reset()
        mario = frame[67:72, 14:18].astype(float)
        contrast[pixels] = abs(mario.mean() - frame[30, 40])
    assert contrast["red"] > 2 * contrast["grey"]


def around(screen: np.ndarray, x: int, y: int) -> np.ndarray:
    """What lies around a point of a screen, by way of a canvas in which everything has room."""
    import cv2

    canvas = np.zeros((1000, 1000), dtype=np.uint8)
    canvas[332:540, 300:556] = screen[32:]
    canvas = canvas[300 + y - 84 : 300 + y + 84, 300 + x - 48 : 300 + x + 144]
    return cv2.resize(canvas, (84, 84), interpolation=cv2.INTER_AREA)


def test_mario_is_always_in_the_same_place(clearing_actions):
    env = MarioEnv(EnvConfig(stage="1-1", show_buttons=False))
    frame, info = env.reset()
    heights = set()
    for action in clearing_actions[:100]:
        ram = env.ram()
        pixels = red_against_the_backdrop(env.screen())
        x = info["x"] - 256 * ram[0x71A] - ram[0x71C] + 8  # less the left of the screen
        y = 255 - info["y"] + 16
        assert np.array_equal(frame, around(pixels.astype(np.uint8), x, y))
        heights.add(y)
        frame, *_, info = env.step(action)
    assert max(heights) - min(heights) > 60


@pytest.mark.parametrize(
    ("page", "top", "left", "game"),
    [(0, 250, 0, slice(42, 84)), (1, 0, 255, slice(42, 84)), (2, 9, 255, slice(0, 42))],
)
def test_beyond_the_game_is_black(page, top, left, game):
    """Mario above, at the upper right and below: half of the view is left at most."""
    env = MarioEnv(EnvConfig(stage="1-1", show_buttons=False))
    env.reset()
    for address, value in ((0xB5, page), (0x3B8, top), (0x86, left), (0x71C, 0)):
        env._emulator.ram[address] = value
    frame = env._observe()
    assert frame.shape == (84, 84) and frame[game].any()
    frame[game] = 0
    assert not frame.any()


def test_reward_pays_for_new_furthest_x_only(env):
    _, info = env.reset()
    furthest = info["x"]
    went_back = False
    for action in [RIGHT_B] * 12 + [LEFT] * 14 + [RIGHT_B] * 6:
        _, reward, terminated, truncated, info = env.step(action)
        assert not terminated and not truncated
        progress = max(0, info["x"] - furthest)
        went_back |= info["x"] < furthest
        furthest += progress
        assert info["max_x"] == furthest
        assert reward == pytest.approx(STEP_REWARD + PROGRESS_REWARD_PER_PX * progress)
    assert went_back


@pytest.mark.parametrize("penalty", [0.0, 7.5])
def test_death_terminates_and_costs(penalty):
    env = MarioEnv(EnvConfig(stage="1-1", death_penalty=penalty))
    env.reset()
    for _ in range(100):
        _, reward, terminated, truncated, info = env.step(RIGHT)  # into the first Goomba
        if terminated:
            break
    assert (terminated, truncated, info["outcome"]) == (True, False, DEATH)
    assert reward == pytest.approx(STEP_REWARD - penalty)
    env.close()


def test_an_extra_life_is_no_death():
    for stage in ("1-1", "full"):
        config = EnvConfig(stage=stage)
        env = MarioEnv(config)
        env.reset()
        env.step(NOOP)
        env._emulator.ram[0x075A] += 1
        _, reward, terminated, _, info = env.step(NOOP)
        assert (reward, terminated, info["outcome"]) == (STEP_REWARD, False, RUNNING)
        while not terminated:
            x = info["x"]
            _, reward, terminated, _, info = env.step(RIGHT)
        assert reward == pytest.approx(STEP_REWARD - config.death_penalty)
        assert info["x"] >= x > 200 and info["time_left"] < 400, "told of the next life"
        env.close()


def test_stall_truncates(env):
    env.reset()
    env.step(RIGHT_B)
    steps, truncated = 0, False
    while not truncated and steps < 30:
        _, reward, terminated, truncated, info = env.step(LEFT)
        steps += 1
    assert (terminated, truncated, info["outcome"]) == (False, True, STALL)
    assert steps == pytest.approx(20, abs=3)
    assert reward == STEP_REWARD


# In 1-2 the screen comes to the Warp Zone before Mario enters the pipe to the flag.
@pytest.mark.parametrize(("stage", "noop_frames"), [(1, 0), (2, 2)])
def test_flag_clears_a_single_stage(stage, noop_frames):
    env = MarioEnv(EnvConfig(stage=f"1-{stage}"))
    env.reset(noop_frames)
    for action in recorded_actions(f"clear_1-{stage}"):
        _, reward, terminated, truncated, info = env.step(action)
    assert (terminated, truncated, info["outcome"]) == (True, False, CLEAR)
    assert (info["world"], info["stage"], info["stages_cleared"]) == (1, stage, 1)
    assert reward == pytest.approx(STEP_REWARD + CLEAR_REWARD)
    assert info["max_x"] > 3100
    env.close()


def test_a_warp_zone_neither_pays_nor_saves():
    env = MarioEnv(EnvConfig(stage="1-2"), save_points=True)
    env.reset()
    last_save_x = 0
    for action in recorded_actions("warp_zone_1-2"):
        _, reward, terminated, _, info = env.step(action)
        assert not terminated
        assert info["x"] < 2700 or reward == STEP_REWARD
        if info["saved"]:
            last_save_x = info["x"]
    assert info["x"] > 3000 and info["max_x"] < 2700 and 2300 < last_save_x < 2700
    env.close()


def test_full_game_runs_on_after_the_flag_and_ends_with_one_life(clearing_actions):
    env = MarioEnv(EnvConfig(stage="full"))
    env.reset()
    rewards = []
    for action in clearing_actions:
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        assert not terminated and not truncated
    for _ in range(60):  # until the next stage has begun
        if info["stages_cleared"]:
            break
        _, reward, terminated, truncated, info = env.step(NOOP)
        rewards.append(reward)
    assert (info["world"], info["stage"], info["stages_cleared"]) == (1, 2, 1)
    assert max(rewards) > CLEAR_REWARD - 1
    assert info["outcome"] == RUNNING and info["max_x"] < 200
    for _ in range(400):
        _, _, terminated, truncated, info = env.step(RIGHT)
        if terminated or truncated:
            break
    assert terminated and info["outcome"] == DEATH
    assert (info["world"], info["stage"]) == (1, 2)
    _, info = env.reset()
    assert (info["world"], info["stage"], info["stages_cleared"]) == (1, 1, 0)
    env.close()


def test_noop_frames_pass_before_the_first_decision():
    screens = []
    # With the clock, which alone moves.
    config = EnvConfig(stage="1-1", view="screen", show_buttons=False)
    env = MarioEnv(config, on_frame=lambda screen: screens.append(1))
    at_once, _ = env.reset()
    screens.clear()
    later, _ = env.reset(noop_frames=30)
    assert len(screens) == 30
    assert not np.array_equal(at_once, later)
    again, _ = env.reset()
    assert np.array_equal(at_once, again)
    env.close()


def test_closing_twice_is_allowed():
    env = MarioEnv(EnvConfig(stage="1-1"))
    env.close()
    env.close()


def test_action_sets():
    assert action_names("right") == ["NOOP", "right", "right+A", "right+B", "right+A+B"]
    assert len(action_names("simple")) == 7
    assert len(action_names("complex")) == 12


def test_held_buttons_reach_the_game(env):
    env.reset()
    y = [env.step(A)[4]["y"] for _ in range(4)]
    assert y[-1] > y[0]
    env.reset()
    slow = [env.step(RIGHT)[4]["x"] for _ in range(15)][-1]
    env.reset()
    fast = [env.step(RIGHT_B)[4]["x"] for _ in range(15)][-1]
    assert fast > slow


@pytest.mark.parametrize("view", ["mario", "screen"])
def test_what_is_held_is_shown_at_the_top(view):
    shows, plain = (
        MarioEnv(EnvConfig(stage="1-1", view=view, show_buttons=show)) for show in (True, False)
    )
    rows = BUTTON_ROWS[view]
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
    holds, releases = (MarioEnv(EnvConfig(stage="1-1")) for _ in range(2))
    frames = []
    for env, last in ((holds, RIGHT_A), (releases, RIGHT)):
        env.reset()
        for _ in range(12):
            env.step(RIGHT_A)
        frames.append(env.step(last)[0])
    held, released = frames
    rows = BUTTON_ROWS["mario"]
    assert np.array_equal(held[rows:], released[rows:])
    assert not np.array_equal(held, released)
    heights = [env.step(RIGHT_A)[-1]["y"] for env in (holds, releases)]
    assert heights[0] == 79 < heights[1]


def play_to_save_point(env, seed=4):
    """Random play from where it stands, until there is a save point or the episode ends."""
    rng = np.random.default_rng(seed)
    while True:
        action = rng.choice([RIGHT_B, RIGHT_A_B, RIGHT_A_B, RIGHT_A_B, RIGHT])
        *_, terminated, truncated, info = env.step(int(action))
        if info["saved"] or terminated or truncated:
            return info


@pytest.mark.parametrize("stage", ["1-1", "4-2", "full"])
def test_reset_after_save_points_leads_to_the_very_same_start(stage):
    """Also where the console remembers: 4-2 would begin in another room."""
    env, fresh = (MarioEnv(EnvConfig(stage=stage), save_points=saves) for saves in (True, False))
    env.reset()
    fresh.reset()
    assert play_to_save_point(env)["saved"]
    env.reset()
    assert env.ram() == fresh.ram() and np.array_equal(env.screen(), fresh.screen())
    for action in [RIGHT_A_B, RIGHT_B, RIGHT_A_B] * 4:
        assert all(map(np.array_equal, env.step(action), fresh.step(action)))
        assert env.ram() == fresh.ram()


def test_retry_leads_to_the_last_save_point():
    env = MarioEnv(EnvConfig(stage="1-1"), save_points=True)
    _, info = env.reset()
    for _ in range(2):
        last_x, info = info["x"], play_to_save_point(env)
        assert info["saved"] and info["x"] >= last_x + 160 and env.ram()[0x1D] == 0
    ram, expected = env.ram(), {**info, "saved": False, "max_x": info["x"]}
    for _ in range(10):
        assert not env.step(RIGHT_B)[-1]["saved"]
    assert env.ram() != ram
    for _ in range(2):
        _, info = env.retry()
        assert env.ram() == ram and info == expected
        _, reward, *_, info = env.step(RIGHT_B)
        progress = info["x"] - expected["x"]
        assert reward == pytest.approx(STEP_REWARD + PROGRESS_REWARD_PER_PX * progress)
    env.close()


# Each ends with the emulator's frame where the game has read only some of the buttons.
@pytest.mark.parametrize(
    ("noop_frames", "actions"),
    [
        (11, [RIGHT_B] + [RIGHT_A_B] * 4 + [RIGHT] * 8 + [RIGHT_B] * 3),
        (11, [RIGHT_A] * 8 + [RIGHT_B] * 2 + [RIGHT_A_B] * 6 + [RIGHT] * 3),
    ],
)
def test_what_follows_a_save_point_does_not_depend_on_what_was_played_before(noop_frames, actions):
    env = MarioEnv(EnvConfig(stage="1-1"))
    env.reset(noop_frames)
    for action in actions:
        env.step(action)
    env.save()
    env.step(RIGHT)
    expected, screen = env.ram(), env.screen()
    for played in ([], [A] * 4 + [LEFT] * 4, [NOOP] * 9):
        for action in played:
            env.step(action)
        env.retry()
        env.step(RIGHT)
        assert env.ram() == expected and np.array_equal(env.screen(), screen)
    env.close()


def test_a_save_point_is_made_also_where_a_game_that_began_later_would_stall():
    """Otherwise the actions since the reset would not tell where they are."""
    env = MarioEnv(EnvConfig(stage="1-1", stall_steps=1), save_points=True)
    env.reset()
    actions = [RIGHT_A_B] * 10 + [RIGHT_B] * 4 + [RIGHT_A_B] * 7 + [RIGHT_B] * 2 + [LEFT] * 4
    infos = [env.step(action)[-1] for action in actions]
    assert [info["saved"] for info in infos] == [False] * (len(actions) - 1) + [True]
    assert infos[-1]["outcome"] == STALL
    env.close()


def test_no_save_points_unless_asked_for(env):
    env.reset()
    for action in [RIGHT_A_B] * 40:
        *_, terminated, _, info = env.step(action)
        assert not info["saved"]
        if terminated:
            break
    assert info["x"] > 240
