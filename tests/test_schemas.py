"""Files that earlier versions wrote are read for ever. `fixtures/make.py` made them."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from mario_rl.comparison import read_run
from mario_rl.files import RunPaths
from mario_rl.model import Model
from mario_rl.tensor_file import SCHEMA

ROOT = Path(__file__).parent.parent
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
    before = read_run(paths)
    assert len(before.episodes) >= 1 and before.total("env_steps") >= 150

    command = [sys.executable, str(ROOT / "progressive_mario_trainer.py"), "--run-name", "old",
               "--resume", "--max-steps", "190", "--output-dir", str(tmp_path)]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert f"resumed at {len(before.episodes)} episodes" in result.stdout
    after = read_run(paths)
    assert after.total("env_steps") >= 190
    pd.testing.assert_frame_equal(after.episodes.head(len(before.episodes)), before.episodes)
