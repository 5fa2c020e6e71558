"""Checkpoints that are written while training goes on."""

import tarfile
import time

import numpy as np
import pytest
import torch
from games import Corridor
from scripts import ROOT, call

from mario_rl.agent.dqn import DQN
from mario_rl.agent.saved_model import Lineage, SavedModel
from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.games.serial import SerialGames
from mario_rl.registry import LEARNERS
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.plain import to_plain
from mario_rl.storage.recorder import Recorder
from mario_rl.training.assembly import build_learner, build_trainer
from mario_rl.training.display import Display
from mario_rl.training.evaluator import Evaluator, EvaluatorState
from mario_rl.training.session import Session
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
    }
)


STORING_S = 1.0


class SlowStore(CheckpointStore):
    """As on a slow disk."""

    def save(self, state, rows, frames_of):
        time.sleep(STORING_S)
        super().save(state, rows, frames_of)


class SlowLearner(DQN):
    def update(self, batch):
        time.sleep(0.05)
        return super().update(batch)


@pytest.fixture
def make_session(tmp_path, monkeypatch):
    monkeypatch.setitem(LEARNERS._parts, "dqn", SlowLearner)
    sessions = []

    def make(store_type):
        paths = RunPaths(tmp_path, "run")
        learner = build_learner(CONFIG, torch.device("cpu"))
        games = SerialGames.of([Corridor(), Corridor()])
        trainer = build_trainer(CONFIG, learner, games, Recorder(paths, {}, 0))
        evaluator = Evaluator(trainer, EvaluatorState())
        store, display = store_type(paths.checkpoints), Display("run")
        session = Session(paths, trainer, evaluator, store, Lineage(), display, lambda: False)
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
    assert trainer.learner._under_way is not None, "an update is under way"
    session._save()
    begun = time.monotonic()
    expected = to_plain(trainer.state())
    learner = to_plain(trainer.learner.begin_state().result())
    rows = trainer.replay.ring.rows
    frames = np.concatenate(trainer.replay.ring.frames_of(rows)).copy()
    step(session, trainer)
    assert session._saving is not None and time.monotonic() - begun < STORING_S, "it waited"
    for _ in range(150):
        step(session, trainer)
    session._finish_saving()

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


def test_the_model_of_another_run_is_not_overwritten(make_session):
    session, _, paths = make_session(CheckpointStore)
    with tarfile.open(ROOT / "tests/fixtures/schema5.tar.gz") as archive:
        archive.extract("models/old.pth", paths.output_dir)
    content = (paths.output_dir / "models/old.pth").rename(paths.model).read_bytes()
    with pytest.raises(UserError, match=r"run\.pth is of another run.*move it away"):
        session._save_model(SavedModel.load(paths.model).evaluation)
    assert paths.model.read_bytes() == content


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
