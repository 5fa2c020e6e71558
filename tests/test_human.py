"""A person plays: with the keys of a real window, on a screen that nobody sees."""

import itertools
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from scripts import ROOT, call

from mario_rl.errors import DamagedFile, UserError
from mario_rl.games.actions import button_bytes
from mario_rl.registry import EMULATORS
from mario_rl.storage.demonstration import Demonstration, Take

pygame = pytest.importorskip("pygame")
RIGHT, A, B = 128, 1, 2


def walk(take, seed, frames):
    """Buttons that change often, mostly to the right."""
    rng, choices = np.random.default_rng(seed), button_bytes("complex")
    while len(take) < frames and not take.emulator.is_over:
        buttons = choices[rng.choice([1, 2, 3, 4, 4, 4, 4, 4, 5, 6, 0, 9, 10])]
        for _ in range(rng.integers(1, 4)):
            if not take.emulator.is_over:
                take.step(buttons)


@pytest.fixture(scope="module")
def demonstrations():
    """Of several stages, played on nes-py, one with a retry. In that of 2-1 its game misses buttons
    just when they change."""
    made = []
    for seed, stage in ((0, "1-1"), (1, "1-2"), (8, "2-1"), (3, "4-2"), (4, "8-1"), (5, "full")):
        emulator = EMULATORS.get("nes-py")(stage, None)
        take = Take(emulator)
        if seed == 0:
            walk(take, 100, 150)
            while not take.can_save:
                take.step(RIGHT)
            take.save()
            walk(take, 101, 260)
            take.retry()
            assert len(take) < 260 and take.retries == 1
        walk(take, seed, 700)
        made.append(take.demonstration(stage))
        emulator.close()
    return made


@pytest.mark.parametrize("emulator", ["nes-py", "fceumm"])
def test_a_demonstration_is_the_same_game_on_both_emulators(demonstrations, emulator):
    if emulator == "fceumm":
        pytest.importorskip("stable_retro")
    for demonstration in demonstrations:
        demonstration.replay(emulator)  # raises if it is not
    assert max(one.max_x for one in demonstrations) > 300


def test_another_game_is_noticed(demonstrations, tmp_path):
    first = demonstrations[0]
    path = tmp_path / "demo.json"
    first.write(path)
    assert Demonstration.read(path) == first
    first.buttons[len(first.buttons) // 2] ^= RIGHT
    path.unlink()
    first.write(path)
    flags = ["--replay-demo", str(path)]
    code, _, errors = call("eval_mario.py", flags, tmp_path)
    first.buttons[len(first.buttons) // 2] ^= RIGHT
    assert (code, errors) == (2, "error: on nes-py this demonstration becomes another game\n")


def test_a_damaged_file_is_refused(demonstrations, tmp_path):
    path = tmp_path / "demo.json"
    demonstrations[1].write(path)
    text = path.read_text()
    path.write_text(text.replace('"max_x": ', '"max_x": 1'))
    with pytest.raises(DamagedFile, match="checksum"):
        Demonstration.read(path)
    path.write_text("{}")
    with pytest.raises(DamagedFile, match="not a demonstration"):
        Demonstration.read(path)
    with pytest.raises(UserError, match="no such file"):
        Demonstration.read(tmp_path / "none.json")


def test_replaying_records_a_video(demonstrations, tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "mine.json"
    demonstrations[4].write(path)
    flags = ["--replay-demo", str(path), "--record", "--emulator", "fceumm"]
    code, _, errors = call("eval_mario.py", flags, tmp_path)
    assert code == 0, errors
    with av.open(str(tmp_path / "videos/mine.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == sum(demonstrations[4].frames)


class Keyboard:
    """Presses keys of a display."""

    def __init__(self, name):
        from Xlib import XK, X, display
        from Xlib.ext import xtest

        self._display = display.Display(name)
        self._send = lambda kind, key: xtest.fake_input(
            self._display, kind, self._display.keysym_to_keycode(XK.string_to_keysym(key))
        )
        self._press, self._release = X.KeyPress, X.KeyRelease

    def press(self, key):
        self._send(self._press, key)
        self._display.sync()
        return time.perf_counter()

    def release(self, key):
        self._send(self._release, key)
        self._display.sync()
        return time.perf_counter()

    def tap(self, key):
        self.press(key)
        time.sleep(0.06)
        self.release(key)
        time.sleep(0.06)


@pytest.fixture
def keyboard(display, monkeypatch):
    pytest.importorskip("Xlib")
    return Keyboard(os.environ["DISPLAY"])


def play(folder, *flags):
    command = [sys.executable, str(ROOT / "eval_mario.py"), "--human", *flags]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:  # the window is open
        if line.startswith("S: save"):
            break
    time.sleep(2.5)
    return process


def test_a_person_plays_and_is_recorded(keyboard, tmp_path):
    process = play(tmp_path, "--stage", "1-1", "--model-path", "1-1", "--record-demo", "me.json")
    pressed = [keyboard.press("Right")]
    time.sleep(0.7)
    pressed.append(keyboard.press("x"))
    time.sleep(0.35)
    pressed.append(keyboard.release("x"))
    time.sleep(0.4)
    pressed.append(keyboard.release("Right"))
    time.sleep(0.3)
    keyboard.tap("q")
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and errors == "", errors
    rate = float(re.search(r"frames, ([\d.]+) per second", output)[1])
    assert 40 <= rate <= 61  # 60.0 on a machine that has nothing else to do
    assert "you: cleared 0 of 0; " in output and re.search(r"cleared \d+ of 100 \(", output)
    demonstration = Demonstration.read(tmp_path / "me.json")
    held = [buttons for buttons in demonstration.buttons if buttons]
    assert held == [RIGHT, RIGHT | A, RIGHT]
    first = demonstration.buttons.index(RIGHT)
    durations = demonstration.frames[first : first + 3]
    shown = int(re.search(r"([\d,]+) frames, ", output)[1].replace(",", ""))
    lost = max(0.0, shown * (60 / rate - 1))
    for frames, (begin, end) in zip(durations, itertools.pairwise(pressed), strict=True):
        # A frame at either end; 6 are caught up with after a delay.
        assert abs(frames - 60 * (end - begin)) <= 2 + 6 + lost
    code, output, errors = call(
        "eval_mario.py", ["--replay-demo", "me.json", "--emulator", "fceumm"], tmp_path
    )
    assert code == 0 and "the same on fceumm" in output + errors


def test_save_go_back_pause_and_start_again(keyboard, tmp_path):
    process = play(tmp_path, "--stage", "1-1", "--record-demo", "me.json")
    keyboard.press("Right")
    time.sleep(0.5)
    keyboard.tap("s")
    time.sleep(1.5)  # to the first enemy, and into it
    keyboard.release("Right")
    keyboard.tap("r")
    keyboard.tap("p")
    time.sleep(2.0)
    keyboard.tap("p")
    time.sleep(0.3)
    keyboard.tap("Return")
    time.sleep(0.5)
    keyboard.tap("q")
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    games = re.findall(r"game \d: (\w+) at x=(\d+), ([\d.]+) s, score \d+(.*)", output)
    assert len(games) >= 2 and games[-2][3] == ", retries: 1"
    assert float(games[-2][2]) < 4, "neither the pause nor what came after the save counts"
    Demonstration.read(tmp_path / "me.json").replay("nes-py")


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--human --record", "--human does not go with --record"),
        ("--human --episodes 3", "--human does not go with --episodes"),
        ("--record-demo a.json --model-path 1-1", "--record-demo needs --human"),
        ("--human --record-demo a.json --emulator fceumm", "needs --emulator nes-py"),
        ("--replay-demo a.json --plot", "--replay-demo does not go with --plot"),
        ("--stage 1-1", "one of --model-path, --human and --replay-demo is required"),
        ("--human --stage 1-2 --model-path 1-1", "the model plays 1-1, and you would play 1-2"),
    ],
)
def test_what_does_not_go_together_is_one_line(flags, message, tmp_path):
    code, _, errors = call("eval_mario.py", flags.split(), tmp_path)
    assert code == 2 and errors.count("\n") == 1 and message in errors


def test_without_pygame_or_a_display_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    flags = ["--human", "--stage", "1-1"]
    assert "there is no display" in call("eval_mario.py", flags, tmp_path)[2]
    monkeypatch.setitem(sys.modules, "pygame", None)
    code, _, errors = call("eval_mario.py", flags, tmp_path)
    assert (code, errors) == (
        2,
        "error: games of people (--human) need pygame-ce: pip install pygame-ce\n",
    )


def test_a_demonstration_is_never_overwritten(display, tmp_path):
    (tmp_path / "me.json").write_text("mine")
    flags = ["--human", "--record-demo", "me.json"]
    code, _, errors = call("eval_mario.py", flags, tmp_path)
    assert code == 2 and "exists already" in errors
    assert (tmp_path / "me.json").read_text() == "mine"
    flags = ["--human", "--record-demo", "/proc/nowhere/me.json"]
    code, _, errors = call("eval_mario.py", flags, tmp_path)
    assert code == 2 and errors.startswith("error: --record-demo /proc/nowhere/me.json: ")
