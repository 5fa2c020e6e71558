"""Checkpoints that are written while training goes on."""

import contextlib
import errno
import os
import re
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from games import Corridor
from scripts import ROOT, call

from mario_rl.agent.dqn import DQN
from mario_rl.agent.saved_model import Lineage, SavedModel
from mario_rl.config import Config
from mario_rl.errors import RunInUse, UserError
from mario_rl.evaluation.figures import summarize
from mario_rl.games.interface import Episode
from mario_rl.games.serial import SerialGames
from mario_rl.registry import LEARNERS
from mario_rl.reports.recorded_runs import read_run
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import to_plain
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.trackers import Tracker
from mario_rl.training.assembly import build_learner, build_trainer
from mario_rl.training.description import describe_run
from mario_rl.training.display import Display
from mario_rl.training.evaluator import Evaluator, EvaluatorState
from mario_rl.training.saver import Saver
from mario_rl.training.session import Session
from mario_rl.training.signals import Signals
from mario_rl.training.state import RunState

CONFIG = Config().replaced(
    {
        "action_set": "right",  # as many actions as the corridor has
        "num_envs": 2,
        "batch_size": 16,
        "learning_starts": 40,
        "replay_capacity": 128,
        "replay_ratio": 1.0,
        "target_period": 20,
        "record_best": False,  # the corridor has no screen
    }
)


EVALUATION = summarize(
    [Episode(1.0, 2, 3, 1, 1, 0, 0, 0, 0, "death", 0)],
    env_steps=2, updates=0, episodes=1, hours=0.0,
)  # fmt: skip
STORING_S = 1.0


class SlowStore(CheckpointStore):
    """As on a slow disk."""

    def save(self, state, rows, new_rows, frames_of):
        time.sleep(STORING_S)
        super().save(state, rows, new_rows, frames_of)


class SlowLearner(DQN):
    def update(self, batch):
        time.sleep(0.05)
        return super().update(batch)


@pytest.fixture
def make_saver(tmp_path, monkeypatch):
    monkeypatch.setitem(LEARNERS._parts, "dqn", SlowLearner)
    savers = []

    def make(store_type, confirm_lock=lambda: None):
        paths = RunPaths(tmp_path, "run")
        learner = build_learner(CONFIG, torch.device("cpu"))
        games = SerialGames.of([Corridor(), Corridor()])
        trainer = build_trainer(CONFIG, learner, games, Recorder(paths, {}, Tracker()))
        evaluator = Evaluator(trainer, EvaluatorState())
        store = store_type(paths.checkpoints)
        saver = Saver(paths, trainer, evaluator, store, Lineage(), confirm_lock)
        savers.append(saver)
        return saver, trainer, paths

    yield make
    for saver in savers:
        saver.close()


def step(saver, trainer):
    saver.before_step()
    trainer.step()


def test_checkpoint_is_of_the_instant_at_which_it_was_begun(make_saver):
    saver, trainer, paths = make_saver(SlowStore)
    for _ in range(140):  # the ring has gone round twice
        step(saver, trainer)
    saver.begin()
    saver.wait()
    for _ in range(10):
        step(saver, trainer)
    assert trainer.learner._under_way is not None, "an update is under way"
    saver.begin()
    begun = time.monotonic()
    expected = to_plain(trainer.state())
    learner = to_plain(trainer.learner.begin_state().result())
    rows = trainer.replay.ring.rows
    frames = np.concatenate(trainer.replay.ring.frames_of(rows)).copy()
    step(saver, trainer)
    assert saver._saving is not None and time.monotonic() - begun < STORING_S, "it waited"
    for _ in range(150):
        step(saver, trainer)
    saver.wait()

    checkpoint = CheckpointStore(paths.checkpoints).load(RunState.from_file)
    loaded = np.concatenate([block for _, block in checkpoint.frames])
    assert np.array_equal(loaded[-len(rows) :], frames)
    saved = to_plain(checkpoint.state.progress.trainer)
    assert saved["env_steps"] == expected["env_steps"] < trainer.env_steps
    for name, array in expected["replay"].items():
        assert np.array_equal(saved["replay"][name], array), name
    saved, now = (
        to_plain(state)
        for state in (checkpoint.state.learner, trainer.learner.begin_state().result())
    )
    for name in ("online_net", "target_net", "acting_net", "average_net"):
        assert all(torch.equal(saved[name][key], learner[name][key]) for key in saved[name]), name
        assert not all(torch.equal(saved[name][key], now[name][key]) for key in saved[name]), name


class FullStore(CheckpointStore):
    """As on a disk that is full for a while."""

    saves_that_fail = 2

    def save(self, state, rows, new_rows, frames_of):
        self.saves_that_fail -= 1
        if self.saves_that_fail >= 0:
            raise UserError("cannot save a checkpoint: the disk is full")
        super().save(state, rows, new_rows, frames_of)


def test_a_checkpoint_that_cannot_be_written_is_written_later(make_saver, capsys):
    saver, trainer, paths = make_saver(FullStore)
    step(saver, trainer)
    assert not saver.due
    saver.begin()
    while not saver.due:  # at once
        step(saver, trainer)
        time.sleep(0.01)
    saver.begin()
    saver.wait()
    step(saver, trainer)
    assert not saver.due, "after a second failure it waits for the next checkpoint"
    assert not CheckpointStore(paths.checkpoints).exists()
    saver.finish()
    assert CheckpointStore(paths.checkpoints).load(RunState.from_file).state.progress is not None
    assert capsys.readouterr().err.count("the disk is full; training goes on") == 2


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(make_saver):
    saver, trainer, _ = make_saver(FullStore)
    step(saver, trainer)
    with pytest.raises(UserError, match="the disk is full"):
        saver.finish()


def test_files_that_somebody_deleted_are_written_again(make_saver, capsys):
    saver, trainer, paths = make_saver(CheckpointStore)
    describe_run(paths, CONFIG, Lineage())
    for _ in range(100):
        step(saver, trainer)
    saver.begin()
    saver.wait()
    records = [path.read_bytes() for path in (paths.episodes_csv, paths.updates_csv)]
    for deleted in (
        lambda: shutil.rmtree(paths.checkpoints),
        lambda: shutil.rmtree(paths.stats),
        lambda: min(paths.checkpoints.glob("*.npy")).unlink(),
    ):
        for _ in range(3):  # some of the frames are on the disk, and some are not
            step(saver, trainer)
        deleted()
        saver.finish()
        checkpoint = CheckpointStore(paths.checkpoints).load(RunState.from_file)
        frames = np.concatenate([block for _, block in checkpoint.frames])
        rows = trainer.replay.ring.rows
        assert np.array_equal(
            frames[-len(rows) :], np.concatenate(trainer.replay.ring.frames_of(rows))
        )
        read_run("run", paths.output_dir)
    for before, path in zip(records, (paths.episodes_csv, paths.updates_csv), strict=True):
        assert path.read_bytes().startswith(before)
    assert "are gone" in capsys.readouterr().err


def test_a_run_that_another_process_has_taken_over_writes_nothing_more(make_saver):
    def confirm_lock():
        raise RunInUse("run 'run' was taken over by process 7")

    saver, trainer, paths = make_saver(CheckpointStore, confirm_lock)
    step(saver, trainer)
    saver.begin()
    with pytest.raises(RunInUse):
        while True:
            step(saver, trainer)
            time.sleep(0.01)
    assert not CheckpointStore(paths.checkpoints).exists()


def test_a_model_that_cannot_be_written_is_written_later(make_saver, capsys):
    saver, trainer, paths = make_saver(CheckpointStore)
    step(saver, trainer)
    paths.model.mkdir(parents=True)
    saver.take_model(EVALUATION)
    saver.wait()
    assert f"{paths.model}" in capsys.readouterr().err
    step(saver, trainer)
    with pytest.raises(UserError, match=re.escape(f"{paths.model}")):
        saver.finish()
    state = CheckpointStore(paths.checkpoints).load(RunState.from_file).state
    assert state.progress.unwritten_model.evaluation == EVALUATION
    paths.model.rmdir()
    saver.finish()
    assert SavedModel.load(paths.model).evaluation == EVALUATION
    for spoil in (paths.model.unlink, lambda: paths.model.write_bytes(b"")):
        spoil()
        step(saver, trainer)
        saver.finish()
        assert SavedModel.load(paths.model).evaluation == EVALUATION


def test_a_model_that_is_lost_and_cannot_be_written_is_in_the_checkpoint(make_saver):
    saver, trainer, paths = make_saver(CheckpointStore)
    step(saver, trainer)
    saver.take_model(EVALUATION)
    saver.wait()
    paths.model.unlink()
    paths.model.mkdir()
    step(saver, trainer)
    with pytest.raises(UserError):
        saver.finish()
    state = CheckpointStore(paths.checkpoints).load(RunState.from_file).state
    assert state.progress.unwritten_model.evaluation == EVALUATION


def test_records_of_another_run_are_not_overwritten(make_saver):
    saver, trainer, paths = make_saver(CheckpointStore)
    step(saver, trainer)
    shutil.rmtree(paths.stats)
    describe_run(paths, CONFIG, Lineage(run_id="0" * 32))
    paths.episodes_csv.write_text("of the other run")
    with pytest.raises(UserError, match="is of another run"):
        saver.finish()
    assert paths.episodes_csv.read_text() == "of the other run"
    assert CheckpointStore(paths.checkpoints).exists(), "the checkpoint is written all the same"


def test_frames_that_cannot_be_reached_are_written_again(make_saver, monkeypatch, capsys):
    saver, trainer, paths = make_saver(CheckpointStore)
    step(saver, trainer)
    saver.begin()
    saver.wait()
    stat = Path.stat

    def refused(path, **kwargs):
        if path.suffix == ".npy":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **kwargs)

    step(saver, trainer)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refused)
        saver.begin()
        saver.wait()
    assert "are gone" in capsys.readouterr().err
    CheckpointStore(paths.checkpoints).load(RunState.from_file)


def test_a_checkpoint_for_which_memory_is_short_is_left_out(make_saver, monkeypatch, capsys):
    saver, trainer, paths = make_saver(CheckpointStore)
    step(saver, trainer)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.learner, "begin_state", lambda: [0] * (1 << 60))
        saver.begin()
    assert "memory is short" in capsys.readouterr().err
    saver.finish()
    assert CheckpointStore(paths.checkpoints).exists()


def test_the_model_of_another_run_is_not_overwritten(make_saver, capsys):
    saver, trainer, paths = make_saver(CheckpointStore)
    step(saver, trainer)
    with tarfile.open(ROOT / "tests/fixtures/schema5.tar.gz") as archive:
        archive.extract("models/old.pth", paths.output_dir)
    content = (paths.output_dir / "models/old.pth").rename(paths.model).read_bytes()
    saver.take_model(EVALUATION)
    saver.wait()
    refusal = f"{paths.model} is of another run than {paths.checkpoints}"
    assert refusal in capsys.readouterr().err
    with pytest.raises(UserError, match="move it away"):
        saver.finish()
    assert paths.model.read_bytes() == content
    paths.model.unlink()
    saver.finish()
    assert SavedModel.load(paths.model).run_name == "run"


def test_a_damaged_model_is_told_and_written_anew(tmp_path):
    with tarfile.open(ROOT / "tests/fixtures/schema2.tar.gz") as archive:
        archive.extractall(tmp_path)
    paths = RunPaths(tmp_path, "old")
    paths.model.write_bytes(paths.model.read_bytes()[:1000])
    words = ["--run-name", "old", "--resume", "--max-steps", "181"]
    code, _, errors = call("progressive_mario_trainer.py", words, tmp_path)
    assert code == 0
    assert errors.startswith("warning: ") and errors.count("\n") == 1
    assert "the next evaluation writes another" in errors
    assert SavedModel.load(paths.model).evaluation.env_steps > 150


def test_what_killed_processes_left_is_removed(tmp_path):
    paths = RunPaths(tmp_path, "run")
    with paths.lock():
        pass
    leftovers = [
        paths.checkpoints / "000003.state.pt.77.tmp",
        paths.stats / "config.json.77.tmp",
        paths.model.with_name("run.pth.77.tmp"),
    ]
    others = [paths.model.with_name("other.pth.78.tmp"), paths.model]
    for path in [*leftovers, *others]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with paths.lock():
        assert not any(path.exists() for path in leftovers)
        assert all(path.exists() for path in others)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_an_evaluation_that_fails_is_tried_again_once(make_saver, monkeypatch, capsys, failures):
    saver, trainer, paths = make_saver(CheckpointStore)
    while trainer.env_steps == 0:  # a game begins with steps of its own
        step(saver, trainer)
    evaluator, calls = saver._evaluator, []

    def build(*_):
        return SerialGames.of([Corridor(), Corridor()])

    def evaluate(games, should_stop):
        calls.append(games)
        if len(calls) <= failures:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        evaluator.best = EVALUATION
        return EVALUATION

    monkeypatch.setattr("mario_rl.training.session.build_games", build)
    monkeypatch.setattr(evaluator, "evaluate", evaluate)
    with contextlib.closing(
        Session(paths, trainer, evaluator, saver, Display("run", plain=True), Signals())
    ) as session:
        session._evaluate()
    errors = capsys.readouterr().err
    assert len(calls) == min(failures + 1, 2)
    assert len(set(map(id, calls))) == len(calls), "new games for the second try"
    assert errors.count("Too many open files; trying again") == (failures > 0)
    assert errors.count("training goes on without it") == (failures == 2)
    assert (evaluator.best is None) == (failures == 2)
    assert (evaluator.evaluated_at == trainer.env_steps) == (failures == 2)
