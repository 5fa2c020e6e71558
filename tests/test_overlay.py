"""The panel that shows what the agent thinks."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from scripts import call

from mario_rl.agent.network import DuelingNetwork
from mario_rl.games.actions import action_names
from mario_rl.reports import overlay as module
from mario_rl.reports.overlay import Overlay, saliency

NAMES = action_names("simple")
SCREEN = np.full((240, 256, 3), 7, dtype=np.uint8)


def fake_network(quantiles):
    """Says the same of every observation."""
    return lambda obs: torch.tensor(quantiles, dtype=torch.float32)[None]


def obs_of(pixels):
    return np.full((1, 4, 42, 42), pixels, dtype=np.uint8)


def count(picture, colour):
    return int((picture == colour).all(axis=2).sum())


def test_panel_lies_beside_the_screen_and_shows_what_the_agent_sees():
    overlay = Overlay(fake_network([[0.0]] * len(NAMES)), NAMES, shows_saliency=False)
    before = overlay.beside(SCREEN)
    assert before.shape == (720, 768 + module.WIDTH, 3) and (before[:, :768] == 7).all()
    overlay.q_values(obs_of(201))
    overlay.decides(0)
    assert count(overlay.beside(SCREEN), (201, 201, 201)) == 252 * 252


def test_bars_are_as_long_as_the_values_and_the_best_stands_out():
    means = [0.5, 1.0, 0.25, 2.0, 0.0, 0.0, 0.0]
    overlay = Overlay(fake_network([[m, m] for m in means]), NAMES, shows_saliency=False)
    assert overlay.q_values(obs_of(0)).tolist() == [means]
    overlay.decides(3)
    panel = overlay.beside(SCREEN)[:, 768:]
    best = np.argwhere((panel == module._BEST).all(axis=2))
    others = np.argwhere((panel == module._OTHER).all(axis=2))
    assert np.ptp(best[:, 1]) == pytest.approx(300, abs=3)  # 2.0 is the greatest
    rows = {row: np.ptp(others[others[:, 0] == row, 1]) for row in set(others[:, 0])}
    assert sorted({round(length / 37.5) for length in rows.values()})[-3:] == [1, 2, 4]


def test_held_buttons_and_the_reward_follow_the_game():
    class Game:
        frame_shape = (42, 42)

        def reset(self, noop_frames=0):
            return "frame", "status"

        def step(self, action):
            return "frame", 1.5, False, False, "status"

    overlay = Overlay(fake_network([[0.0]] * len(NAMES)), NAMES, shows_saliency=False)
    game = overlay.watched(Game())
    assert game.frame_shape == (42, 42) and game.reset() == ("frame", "status")
    pressed = []
    for name in ("NOOP", "right", "right+A+B"):
        assert game.step(NAMES.index(name))[1] == 1.5
        panel = overlay.beside(SCREEN)[:300, 768:]
        pressed.append(count(panel, module._PRESSED))
    assert pressed[0] == 0 < pressed[1] < pressed[2]
    assert overlay._reward == 4.5
    game.reset()
    assert overlay._reward == 0.0


def test_saliency_is_the_gradient_of_the_best_value():
    torch.manual_seed(0)
    network = DuelingNetwork(5, width=0.1, frame_size=21)
    obs = torch.randint(0, 256, (1, 4, 21, 21), dtype=torch.uint8)
    strength = saliency(network, obs)[0]
    assert strength.shape == (21, 21) and strength.max() == 1 and strength.min() >= 0
    slopes = np.zeros((21, 21))
    for row, column in ((3, 4), (10, 10), (17, 2), (8, 15)):
        for frame in range(4):
            values = []
            for change in (-1.0, 1.0):
                changed = obs.float()
                changed[0, frame, row, column] += change
                with torch.no_grad():
                    values.append(network(changed).mean(dim=2).max().double().item())
            slopes[row, column] += abs(values[1] - values[0]) / 2
    places = slopes > 0
    assert places.sum() >= 3
    ratios = strength[places] / slopes[places]
    assert ratios == pytest.approx(ratios.mean(), rel=0.05)


def test_a_recording_holds_the_panel(tmp_path):
    words = "--model-path 1-1 --record --saliency --max-steps 3 --emulator auto --json".split()
    code, _, _ = call("eval_mario.py", words, tmp_path)
    assert code == 0
    (video,) = Path(tmp_path / "videos").glob("*.mp4")
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) >= 12 and frames[0].shape == (720, 1280, 3)
    panel = frames[-1][:, 768:].astype(int)
    assert (abs(panel - module._BEST).max(axis=2) < 40).sum() > 1000


@pytest.mark.parametrize("flag", ["--overlay", "--saliency"])
def test_without_a_game_to_watch_there_is_no_overlay(tmp_path, flag):
    code, _, errors = call("eval_mario.py", ["--model-path", "1-1", flag], tmp_path)
    assert code == 2 and "need --record or --render" in errors
