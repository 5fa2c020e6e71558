"""Recordings: where they are written, with what, and what is left when they fail."""

import builtins
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.evaluation.recording import record_game
from mario_rl.games.interface import Position
from mario_rl.games.mario_game import MarioGame
from mario_rl.storage import video
from mario_rl.storage.video import VideoWriter

FRAME = np.zeros((240, 256, 3), dtype=np.uint8)


def record(path, frames=4):
    with VideoWriter(path, 240, 256) as writer:
        for _ in range(frames):
            writer.add(FRAME)


def number_of_frames(path):
    with av.open(path.open("rb")) as container:
        return sum(1 for _ in container.decode(container.streams.video[0]))


@pytest.mark.parametrize("folder", ["exp:1", "./exp:1/videos", os.fsdecode(b"caf\xe9"), "50%20?#"])
def test_any_folder_is_a_folder(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    path = Path(folder) / "a.mp4"
    record(path)
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]
    assert number_of_frames(path) == 4


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 240, 256) as writer:
        for _ in range(100):  # more than the encoder keeps to itself
            writer.add(FRAME)
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["/proc/self/task", "/dev/null"])
def test_a_folder_that_cannot_be_written_is_named(folder):
    with pytest.raises(UserError, match=rf"cannot (write|create the folder) {folder}"):
        record(Path(folder, "a.mp4"))


def test_a_full_disk_is_told_in_a_line(tmp_path):
    """The largest file that the process may write is smaller than the recording."""
    script = (
        "import resource, signal, pathlib, numpy, mario_rl.storage.video as video\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "frame = numpy.random.default_rng(0).integers(0, 255, (720, 768, 3), dtype='uint8')\n"
        f"writer = video.VideoWriter(pathlib.Path({str(tmp_path)!r}) / 'a.mp4', 720, 768)\n"
        "try:\n"
        "    with writer:\n"
        "        for _ in range(3): writer.add(frame)\n"
        "except video.UserError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == f"cannot write {tmp_path / 'a.mp4'}: File too large\n", result.stderr
    assert not list(tmp_path.iterdir())


def test_another_encoder_is_taken(tmp_path, monkeypatch):
    """As where PyAV was built without x264."""
    encoders = {"no-such-encoder": {}, **video._H264_ENCODERS}
    monkeypatch.setattr(video, "_H264_ENCODERS", encoders)
    record(tmp_path / "a.mp4")
    assert number_of_frames(tmp_path / "a.mp4") == 4


def test_without_an_encoder_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_H264_ENCODERS", {"no-such-encoder": {}})
    with pytest.raises(UserError, match=r"no H.264 encoder; .* pip install .* av"):
        record(tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_without_pyav_the_way_out_is_named(tmp_path, monkeypatch):
    def import_all_but_av(name, *args):
        if name == "av":
            raise ImportError("libavcodec.so.61: cannot open shared object file")
        return original(name, *args)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", import_all_but_av)
    with pytest.raises(UserError, match=r"videos need PyAV, but libavcodec.* pip install .* av"):
        record(tmp_path / "a.mp4")


def test_what_killed_recordings_left_is_removed(tmp_path):
    gone = next(pid for pid in range(4_000_000, 1, -1) if not psutil.pid_exists(pid))
    names = {
        f"killed.{gone}.tmp.mp4": 3600,
        f"just-written.{gone}.tmp.mp4": 0,
        f"alive.{os.getpid()}.tmp.mp4": 3600,
        "of-somebody.tmp.mp4": 3600,
        "finished.mp4": 3600,
    }
    for name, age_s in names.items():
        (tmp_path / name).touch()
        changed = (tmp_path / name).stat().st_mtime - age_s
        os.utime(tmp_path / name, (changed, changed))
    record(tmp_path / "a.mp4")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.mp4", *list(names)[1:]}


def test_a_game_is_recorded_as_it_was_played(tmp_path):
    config = Config().replaced({"stage": "1-1", "emulator": "nes-py"}).env
    frames, actions = [], [3, 3, 4, 4, 4, 4, 4, 1] * 4
    with contextlib.closing(MarioGame(config, lambda frame: frames.append(frame.copy()))) as game:
        game.reset(5)
        for action in actions:
            game.step(action)
    record_game(config, Position(5, actions), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 5 + 4 * len(actions)
    for picture, frame in zip(pictures, frames[::2], strict=True):
        assert np.abs(picture.astype(int) - frame).mean() < 8
