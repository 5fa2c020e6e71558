"""Files that earlier versions wrote are read for ever. `fixtures/make.py` made them."""

import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from scripts import ROOT, call

from mario_rl.agent.saved_model import SavedModel
from mario_rl.reports.recorded_runs import read_run
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.storage.paths import RunPaths
from mario_rl.storage.tensor_file import SCHEMA, load_tensors
from mario_rl.training.state import RunState

FIXTURES = sorted((ROOT / "tests" / "fixtures").glob("schema*.tar.gz"))


def test_every_schema_has_a_fixture():
    assert {f"schema{number}.tar.gz" for number in range(1, SCHEMA + 1)} <= {
        path.name for path in FIXTURES
    }


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name.partition(".")[0])
def test_run_of_an_earlier_version_goes_on(fixture, tmp_path):
    with tarfile.open(fixture) as archive:
        archive.extractall(tmp_path)
    paths = RunPaths(tmp_path, "old")
    model = SavedModel.load(paths.model)
    assert model.config.env.stage == "1-1" and model.evaluation.max_x >= 40
    before = read_run("old", tmp_path)
    assert len(before.episodes) >= 1 and before.total("env_steps") >= 150

    words = ["--run-name", "old", "--resume", "--max-steps", "190"]
    code, output, errors = call("progressive_mario_trainer.py", words, tmp_path)
    assert code == 0 and errors == "", errors
    assert f"resumed at {len(before.episodes)} episodes" in output
    after = read_run("old", tmp_path)
    assert after.total("env_steps") >= 190
    pd.testing.assert_frame_equal(after.episodes.head(len(before.episodes)), before.episodes)


CLOCK = ["hours", "env_steps_per_s", "updates_per_s", "memory_bytes"]


def test_a_run_continues_as_the_version_before_would_have(tmp_path):
    """The fixture holds a run that an earlier version left at 401 env steps, and where the same
    version then led it: to 900. Another processor may round the last bits of the weights otherwise.
    """
    with tarfile.open(ROOT / "tests/fixtures/continued.tar.gz") as archive:
        archive.extractall(tmp_path)
    words = ["--run-name", "before", "--resume", "--max-steps", "900"]
    code, _, errors = call("progressive_mario_trainer.py", words, tmp_path)
    assert code == 0 and errors == "", errors

    for file in ("episodes.csv", "evaluations.csv"):
        expected = pd.read_csv(tmp_path / "expected" / file)
        actual = pd.read_csv(tmp_path / "stats" / "before" / file)
        clock = [name for name in CLOCK if name in expected]
        pd.testing.assert_frame_equal(
            actual.drop(columns=clock), expected.drop(columns=clock), rtol=1e-4
        )
    expected = RunState.from_file(load_tensors(tmp_path / "expected" / "state.pt", "checkpoint"))
    store = CheckpointStore(RunPaths(tmp_path, "before").checkpoints)
    actual = store.load(RunState.from_file).state
    for network in ("online_net", "target_net", "acting_net", "average_net"):
        torch.testing.assert_close(
            getattr(actual.learner, network), getattr(expected.learner, network),
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip
    ours, theirs = actual.progress.trainer, expected.progress.trainer
    assert (ours.env_steps, ours.updates, ours.episodes, ours.furthest) == (
        theirs.env_steps, theirs.updates, theirs.episodes, theirs.furthest
    )  # fmt: skip
    assert ours.sample_rng == theirs.sample_rng and ours.n_step == theirs.n_step
    assert ours.rollout.exploration["rng"] == theirs.rollout.exploration["rng"]
    for name in ("age", "actions", "returns", "discounts", "steps"):
        assert np.array_equal(getattr(ours.replay, name), getattr(theirs.replay, name)), name
    np.testing.assert_allclose(ours.replay.priorities, theirs.replay.priorities, rtol=1e-3)
