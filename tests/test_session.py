"""Checkpoints that are written while training goes on."""

import copy
import tarfile
import time

import numpy as np
import pytest
import torch
from games import Corridor
from scripts import ROOT, call

from mario_rl.agent.learner import Learner
from mario_rl.agent.saved_model import Lineage, Model
from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.games.serial import SerialGames
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.files import RunPaths
from mario_rl.storage.recorder import Recorder
from mario_rl.training.display import Progress
from mario_rl.training.session import Session
from mario_rl.training.trainer import Trainer

CONFIG = Config().replaced(
    {
        "num_envs": 2,
        "batch_size": 16,
        "learning_starts": 40,
        "replay_capacity": 128,
        "replay_ratio": 1.0,
        "target_period": 20,
    }
)


STORING_S = 1.0


class SlowStore(CheckpointStore):
    """As on a slow disk."""

    def save(self, state, rows, frames_of):
        time.sleep(STORING_S)
        super().save(state, rows, frames_of)


class SlowLearner(Learner):
    def update(self, batch):
        time.sleep(0.05)
        return super().update(batch)


@pytest.fixture
def make_session(tmp_path):
    sessions = []

    def make(store_type):
        paths = RunPaths(tmp_path, "run")
        learner = SlowLearner(CONFIG.learner, Corridor.num_actions, torch.device("cpu"), 0)
        recorder = Recorder(paths, {}, 0)
        trainer = Trainer(CONFIG, learner, SerialGames.of([Corridor(), Corridor()]), recorder)
        store = store_type(paths.checkpoints)
        session = Session(paths, trainer, store, Lineage(), Progress("run"), lambda: False)
        sessions.append(session)
        return session, trainer, paths

    yield make
    for session in sessions:
        session.close()


def step(session, trainer):
    session._before_step()
    trainer.step()


def test_checkpoint_is_of_the_instant_at_which_it_was_begun(make_session):
    session, trainer, paths = make_session(SlowStore)
    for _ in range(140):  # the ring has gone round twice
        step(session, trainer)
    session._save()
    session._finish_saving()
    for _ in range(10):
        step(session, trainer)
    assert trainer.learner._update is not None, "an update is under way"
    session._save()
    begun = time.monotonic()
    expected = copy.deepcopy(trainer.state_dict())
    learner = trainer.learner.state_dict()
    rows = trainer.replay.ring.rows
    frames = np.concatenate(trainer.replay.ring.frames_of(rows)).copy()
    step(session, trainer)
    assert session._saving is not None and time.monotonic() - begun < STORING_S, "it waited"
    for _ in range(150):
        step(session, trainer)
    session._finish_saving()

    checkpoint = CheckpointStore(paths.checkpoints).load()
    loaded = np.concatenate([block for _, block in checkpoint.frames])
    assert np.array_equal(loaded[-len(rows) :], frames)
    progress = checkpoint.state["progress"]
    assert (
        progress["counters"]["env_steps"] == expected["counters"]["env_steps"] < trainer.env_steps
    )
    for name, array in expected["replay"].items():
        assert np.array_equal(progress["replay"][name], array), name
    for name in ("online_net", "target_net", "acting_net", "average_net"):
        saved = checkpoint.state["learner"][name]
        assert all(torch.equal(saved[key], learner[name][key]) for key in saved), name
        now = trainer.learner.state_dict()[name]
        assert not all(torch.equal(saved[key], now[key]) for key in saved), name


class FullStore(CheckpointStore):
    def save(self, state, rows, frames_of):
        raise UserError("cannot save a checkpoint: the disk is full")


def test_a_checkpoint_that_cannot_be_written_ends_the_run(make_session):
    session, trainer, _ = make_session(FullStore)
    step(session, trainer)
    session._save()
    with pytest.raises(UserError, match="the disk is full"):
        for _ in range(100):
            step(session, trainer)
            time.sleep(0.01)


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
    assert Model.load(paths.model).evaluation["env_steps"] > 150


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
