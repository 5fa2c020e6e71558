"""Files that earlier versions wrote are read for ever. `fixtures/make.py` made them."""

import tarfile

import pandas as pd
import pytest
from scripts import ROOT, call

from mario_rl.agent.saved_model import Model
from mario_rl.reports.recorded_runs import read_run
from mario_rl.storage.files import RunPaths
from mario_rl.storage.tensor_file import SCHEMA

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
    model = Model.load(paths.model)
    assert model.config.env.stage == "1-1" and model.evaluation["max_x"] >= 40
    before = read_run("old", tmp_path)
    assert len(before.episodes) >= 1 and before.total("env_steps") >= 150

    words = ["--run-name", "old", "--resume", "--max-steps", "190"]
    code, output, errors = call("progressive_mario_trainer.py", words, tmp_path)
    assert code == 0 and errors == "", errors
    assert f"resumed at {len(before.episodes)} episodes" in output
    after = read_run("old", tmp_path)
    assert after.total("env_steps") >= 190
    pd.testing.assert_frame_equal(after.episodes.head(len(before.episodes)), before.episodes)
