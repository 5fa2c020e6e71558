"""Checkpoints and models on disk: incremental, complete, and safe to load."""

import builtins
import errno
import io
import os
import subprocess
import sys
import zlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mario_rl.agent.network import build_network
from mario_rl.agent.saved_model import Lineage, Parent, SavedModel
from mario_rl.config import Config
from mario_rl.errors import DamagedFile, UserError
from mario_rl.evaluation.figures import Evaluation
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.files import atomic_write, read_json, write_json
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.tensor_file import SCHEMA


class Ring:
    """A replay's rows, each filled with its own number."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.written = 0

    @property
    def rows(self):
        return range(max(0, self.written - self.capacity), self.written)

    def frames_of(self, rows):
        numbers = np.arange(rows.start, rows.stop, dtype=np.uint8)
        frames = np.broadcast_to(numbers[:, None, None, None], (len(numbers), 2, 4, 4)).copy()
        return np.array_split(frames, 2)


def rows_of(checkpoint):
    return {
        first + i: int(block[i, 0, 0, 0])
        for first, block in checkpoint.frames
        for i in range(len(block))
    }


def save_some(store, ring, counts):
    for count in counts:
        ring.written += count
        store.save(
            {"written": ring.written, "array": np.arange(3)},
            ring.rows,
            store.new_rows(ring.rows),
            ring.frames_of,
        )


def python(script):
    """Run a script in another process, which imports what this one does."""
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=os.environ | path, capture_output=True, text=True)


def test_every_kept_checkpoint_holds_the_whole_replay(tmp_path):
    ring, store = Ring(10), CheckpointStore(tmp_path)
    for count in (4, 3, 0, 5, 25, 2, 1, 9):
        save_some(store, ring, [count])
        checkpoint = CheckpointStore(tmp_path).load(dict)
        assert checkpoint.state["written"] == ring.written
        rows = rows_of(checkpoint)
        assert all(rows[row] == row for row in ring.rows)


def test_frames_are_written_once(tmp_path):
    ring, store = Ring(1000), CheckpointStore(tmp_path)
    save_some(store, ring, [200, 3])
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("*.frames.npy"))]
    assert sizes[0] > 200 * 32 and sizes[1] < 128 + 4 * 32
    resumed = CheckpointStore(tmp_path)
    resumed.load(dict)
    save_some(resumed, ring, [2])
    assert (tmp_path / "000003.frames.npy").stat().st_size < 128 + 3 * 32


def test_three_checkpoints_are_kept(tmp_path):
    ring, store = Ring(10), CheckpointStore(tmp_path)
    save_some(store, ring, [4] * 9)
    assert sorted(p.stem for p in tmp_path.glob("*.json")) == ["000007", "000008", "000009"]
    assert len(list(tmp_path.glob("*.state.pt"))) == 3
    # Row 18, the oldest in the replay of checkpoint 7, was written with checkpoint 5.
    frames = sorted(p.name for p in tmp_path.glob("*.frames.npy"))
    assert frames == [f"{number:06}.frames.npy" for number in range(5, 10)]


@pytest.mark.parametrize("suffix", ["json", "state.pt", "frames.npy"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_checkpoint_falls_back_loudly(tmp_path, capsys, suffix, damage):
    ring, store = Ring(10), CheckpointStore(tmp_path)
    save_some(store, ring, [4, 4])
    path = tmp_path / f"000002.{suffix}"
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)
    store = CheckpointStore(tmp_path)
    assert store.load(dict).state["written"] == 4
    warned = "going back" in capsys.readouterr().err
    assert warned or (suffix, damage) == ("json", "remove")
    ring.written = 4
    save_some(store, ring, [5, 1, 1])  # the damaged one gives way
    assert CheckpointStore(tmp_path).load(dict).state["written"] == 11
    kept = sorted(p.stem for p in tmp_path.glob("*.json"))
    assert len(kept) == 3 and "000002" not in kept[1:]


def test_no_usable_checkpoint_is_one_line(tmp_path):
    store = CheckpointStore(tmp_path)
    save_some(store, Ring(10), [4])
    (tmp_path / "000001.state.pt").write_bytes(b"x")
    with pytest.raises(UserError, match="no usable checkpoint"):
        CheckpointStore(tmp_path).load(dict)


def test_newer_version_is_refused_and_left_alone(tmp_path):
    save_some(CheckpointStore(tmp_path), Ring(10), [4, 4])
    path = tmp_path / "000002.json"
    write_json(path, {**read_json(path), "schema": SCHEMA + 1})
    with pytest.raises(UserError, match="update Mario RL") as caught:
        CheckpointStore(tmp_path).load(dict)
    assert not isinstance(caught.value, DamagedFile)


def test_full_disk_leaves_the_older_checkpoints(tmp_path):
    """Run in a process of its own whose files may not grow beyond 20 kB."""
    script = f"""
import resource, signal
from pathlib import Path
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.errors import UserError
from test_checkpoint import Ring, save_some
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store, ring = CheckpointStore(Path({str(tmp_path)!r})), Ring(10_000)
save_some(store, ring, [4])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_some(store, ring, [5_000])
except UserError as error:
    print(error)
"""
    result = python(script)
    assert "cannot save a checkpoint" in result.stdout and not result.stderr
    assert CheckpointStore(tmp_path).load(dict).state["written"] == 4
    assert not list(tmp_path.glob("*.tmp"))


def model():
    figures = {item.name: 0 for item in fields(Evaluation)}
    evaluation = Evaluation(**{**figures, "clear_rate": 0.5, "updates": 7})
    lineage = Lineage(2, [Parent("first", 1, 0.25, 400.0)])
    weights = build_network(Config()).state_dict()
    return SavedModel("run", Config(), lineage, evaluation, weights, None, averaged_updates=20)


def test_model_round_trip(tmp_path):
    original = model()
    original.save(tmp_path / "models" / "m.pth")
    loaded = SavedModel.load(tmp_path / "models" / "m.pth")
    assert (loaded.config, loaded.lineage) == (original.config, original.lineage)
    assert loaded.evaluation == original.evaluation
    assert loaded.averaged_updates == 20
    obs = torch.randint(0, 255, (2, 4, *Config().env.frame_shape), dtype=torch.uint8)
    network = build_network(Config())
    network.load_state_dict(original.weights)
    assert torch.equal(loaded.network()(obs), network(obs))


def test_model_of_another_architecture_is_refused(tmp_path):
    weights = {**model().weights}
    weights["value.0.weight"] = torch.zeros(10, 3136)
    replace(model(), weights=weights).save(tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"m\.pth is damaged: weights\.value\.0\.weight has"):
        SavedModel.load(tmp_path / "m.pth")


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"half of the new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "name", ["", "../x", "/etc/x", "a/b", "a\0b", "x" * 300, "..", ".hidden", "ünï", "a b", "-x"]
)
def test_run_names_that_could_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="--run-name"):
        RunPaths(tmp_path, name)


@pytest.mark.parametrize("suffix", ["json", "state.pt", "frames.npy"])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_read_now_is_not_called_damaged(
    tmp_path, monkeypatch, capsys, suffix, code
):
    ring, store = Ring(10), CheckpointStore(tmp_path)
    save_some(store, ring, [4, 4])
    opened = builtins.open

    def open_file(path, *args, **kwargs):
        if str(path).endswith(f"000002.{suffix}"):
            raise OSError(code, os.strerror(code), str(path))
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", open_file)
        patch.setattr(io, "open", open_file)
        store = CheckpointStore(tmp_path)
        if code == errno.EIO:  # a bad sector: what it held is lost
            assert store.load(dict).state["written"] == 4
            assert "going back" in capsys.readouterr().err
        else:
            with pytest.raises(UserError, match="cannot be read") as error:
                store.load(dict)
            assert not isinstance(error.value, DamagedFile)
    if code != errno.EIO:
        assert CheckpointStore(tmp_path).load(dict).state["written"] == 8


def test_more_files_of_frames_than_may_be_open(tmp_path):
    ring, store = Ring(100), CheckpointStore(tmp_path)
    save_some(store, ring, [1] * 80)
    script = f"""
import resource
from pathlib import Path
from mario_rl.storage.checkpoint import CheckpointStore
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
print(len(CheckpointStore(Path({str(tmp_path)!r})).load(dict).frames))
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
try:
    CheckpointStore(Path({str(tmp_path)!r})).load(dict)
except Exception as error:
    print(type(error).__name__, error)
"""
    result = python(script)
    number, error = result.stdout.splitlines()
    assert number == "80", result.stderr
    assert error.startswith("UserError up to ") and "ulimit -n" in error


@pytest.mark.parametrize("header", [b"((", b"-" * 9000 + b"1", b"{'a': " * 500])
def test_a_header_of_frames_that_nobody_can_read(tmp_path, capsys, header):
    ring, store = Ring(10), CheckpointStore(tmp_path)
    save_some(store, ring, [4, 4])
    frames = tmp_path / "000002.frames.npy"
    frames.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    manifest = read_json(tmp_path / "000002.json")
    content = frames.read_bytes()
    manifest["frames"][-1] |= {"bytes": len(content), "crc32": zlib.crc32(content)}
    write_json(tmp_path / "000002.json", manifest)
    assert CheckpointStore(tmp_path).load(dict).state["written"] == 4
    assert "000002.frames.npy is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_called_like_a_checkpoint_and_is_no_file(tmp_path, make):
    ring, store = Ring(10), CheckpointStore(tmp_path)
    save_some(store, ring, [4])
    for name in ("000001.backup", "000003.json"):
        make(tmp_path / name)
    store = CheckpointStore(tmp_path)
    assert store.load(dict).state["written"] == 4
    save_some(store, ring, [4] * 5)
    assert CheckpointStore(tmp_path).load(dict).state["written"] == 24
    assert (tmp_path / "000001.backup").exists()
