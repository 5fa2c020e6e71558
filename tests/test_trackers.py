"""Trackers: each with its own library where it is installed, and what happens when one fails."""

import json
import sys
import time
import types

import numpy as np
import pytest
from scripts import call

from mario_rl import registry
from mario_rl.config import Config
from mario_rl.storage.lineage import Lineage, Parent
from mario_rl.storage.trackers import TrackedRun, Tracker, Trackers
from mario_rl.storage.video import VideoWriter

ID = "0123456789abcdef" * 2
PARENTS = [Parent("before", 1, 0.5, 2000.0)]
ROWS = [("train", {"loss": 0.5, "outcome": "death"}, 8), ("train", {"loss": 0.25}, 16)]


def tracked_run(folder, track="none", env_steps=0):
    folder.mkdir(exist_ok=True)
    config = Config().replaced({"track": track, "stage": "1-1", "gamma": 0.9})
    return TrackedRun("run", folder, config, Lineage(2, PARENTS, ID), env_steps)


def write(trackers, rows=ROWS):
    for tag, row, step in rows:
        trackers.add(tag, row, step)
        trackers.flush()


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "run_best.mp4"
    with VideoWriter(path, 16, 16) as writer:
        writer.add(np.zeros((16, 16, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize("broken", ["import", "open", "add_scalar", "flush", "close"])
def test_a_broken_tracker_is_said_once(broken, tmp_path, monkeypatch, capsys):
    class Writer:
        def __init__(self, *_, **__):
            self.fail("open")

        def fail(self, where):
            if where == broken:
                raise AttributeError("module 'numpy' has no attribute 'string_'")

        def add_scalar(self, *_):
            self.fail("add_scalar")

        def flush(self):
            self.fail("flush")

        def close(self):
            self.fail("close")

    module = types.ModuleType("torch.utils.tensorboard")
    if broken != "import":
        module.SummaryWriter = Writer
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    trackers = Trackers(tracked_run(tmp_path))
    write(trackers)
    trackers.close()
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("warning: TensorBoard failed (")


def test_one_that_fails_leaves_the_others(tmp_path, monkeypatch, capsys):
    taken = []

    class Broken(Tracker):
        def __init__(self, run):
            self.run = run

        def add(self, tag, row, env_steps):
            raise ConnectionError("no network\nand much more")

    class Good(Tracker):
        def add(self, tag, row, env_steps):
            taken.append((tag, row, env_steps))

    trackers = Trackers(tracked_run(tmp_path))
    trackers._trackers = {"broken": Broken(None), "good": Good()}
    write(trackers)
    assert taken == [("train", {"loss": 0.5}, 8), ("train", {"loss": 0.25}, 16)]
    errors = capsys.readouterr().err
    assert errors == ("warning: broken failed (ConnectionError: no network); going on without it\n")


def test_without_tensorboard_nothing_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    trackers = Trackers(tracked_run(tmp_path / "run"))
    write(trackers)
    trackers.close()
    assert capsys.readouterr().err == "" and not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_missing_library_is_named_before_the_run_begins(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    flags = ["--run-name", "run", "--track", name]
    code, _, errors = call("progressive_mario_trainer.py", flags, tmp_path)
    assert (code, errors) == (2, f"error: --track {name} needs {name}: pip install {name}\n")
    assert not list(tmp_path.glob("stats/run/*"))


def log_records(content):
    """Of a file in LevelDB's log format, after a header of 7 bytes: blocks of 32 KiB, in which a
    record is a checksum (4 bytes), a length (2) and a kind (1: whole; 2, 3, 4: its parts)."""
    at, parts = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def test_wandb_offline(tmp_path, monkeypatch, video, capsys):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    trackers = Trackers(tracked_run(tmp_path / "run", "wandb"))
    write(trackers)
    trackers.add_video(video, 16)
    trackers.close()
    assert "warning" not in capsys.readouterr().err
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert ID in log.name
    deadline = time.monotonic() + 30  # another process writes it
    records = []
    while not any(record.WhichOneof("record_type") == "exit" for record in records):
        assert time.monotonic() < deadline
        contents = log_records(log.read_bytes())
        records = [wandb_internal_pb2.Record.FromString(content) for content in contents]
    rows, settings, tags = [], {}, []
    for record in records:
        if record.WhichOneof("record_type") == "run":
            given = record.run.config.update
            settings |= {item.key: json.loads(item.value_json) for item in given}
            tags += record.run.tags
        elif record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {"/".join(item.nested_key) or item.key: item.value_json for item in items}
            rows.append({key: json.loads(value) for key, value in row.items()})
    assert settings["learner"]["gamma"] == 0.9
    assert {"stage: 1-1", "iteration: 2", "parent: before"} <= set(tags)
    losses = [(row["env_steps"], row["train/loss"]) for row in rows if "train/loss" in row]
    assert losses == [(8, 0.5), (16, 0.25)]
    assert list(log.parent.glob("files/media/videos/**/*.mp4"))


def test_trackio(tmp_path, monkeypatch, video, capsys):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads TRACKIO_DIR when it is imported
    for first in (0, 1):  # a run and its resume
        trackers = Trackers(tracked_run(tmp_path / "run", "trackio"))
        write(trackers, ROWS[first : first + 1])
        if first:
            trackers.add_video(video, 16)
        trackers.close()
    from trackio import context_vars

    assert context_vars.current_run.get() is None, "Trackio would print a line at exit"
    streams = capsys.readouterr()
    assert streams.out == "" and "warning" not in streams.err
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = SQLiteStorage.get_runs("mario-rl")
    assert run == f"run-{ID[:8]}"
    logs = SQLiteStorage.get_logs("mario-rl", run)
    losses = [(row["step"], row["train/loss"]) for row in logs if "train/loss" in row]
    assert losses == [(8, 0.5), (16, 0.25)]
    config = SQLiteStorage.get_run_config("mario-rl", run)
    assert (config["gamma"], config["parent"], config["iteration"]) == (0.9, "before", "2")
    assert list((tmp_path / "trackio").glob("media/**/*.mp4"))


def test_mlflow(tmp_path, monkeypatch, video, capsys):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    for first in (0, 1):
        trackers = Trackers(tracked_run(tmp_path / "run", "mlflow"))
        write(trackers, ROWS[first : first + 1])
        if first:
            trackers.add_video(video, 16)
        trackers.close()
    assert "warning" not in capsys.readouterr().err
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("mario-rl")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run" and run.info.status == "FINISHED"
    assert run.data.params["gamma"] == "0.9"
    assert run.data.tags["parent"] == "before" and run.data.tags["run_id"] == ID
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(8, 0.5), (16, 0.25)]
    (file,) = client.list_artifacts(run.info.run_id, "videos")
    assert file.path == "videos/run_best.mp4"


def test_a_run_goes_to_its_tracker_and_survives_it(tmp_path, monkeypatch):
    """A whole run; its tracker fails in the middle."""
    taken = []

    class Failing(Tracker):
        def __init__(self, run):
            taken.append((run.name, run.tags["stage"], run.env_steps))

        def add(self, tag, row, env_steps):
            taken.append((tag, env_steps))
            if len(taken) == 4:
                raise TimeoutError

        def add_video(self, path, env_steps):
            raise AssertionError("it was given up before")

    parts = {**registry.TRACKERS._parts, "failing": Failing}
    monkeypatch.setattr(registry.TRACKERS, "_parts", parts)
    flags = """
        --run-name run --stage 1-1 --num-envs 2 --batch-size 16 --learning-starts 60
        --replay-capacity 400 --eval-episodes 1 --num-episodes 6 --threads 1 --track failing
        --stall-steps 8 --replay-ratio 1 --games serial
    """.split()
    code, output, errors = call("progressive_mario_trainer.py", flags, tmp_path)
    assert code == 0 and "finished" in output
    assert errors == "warning: failing failed (TimeoutError: TimeoutError); going on without it\n"
    assert taken[0] == ("run", "1-1", 0) and len(taken) == 4
