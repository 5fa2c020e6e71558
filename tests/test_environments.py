"""Machines and files as users have them: odd folders, no home, other programs' models."""

import os
import pickle
import subprocess
import sys
import tarfile
import zipfile

import pytest
import torch
from scripts import ROOT, call


@pytest.fixture
def run(tmp_path):
    """A finished run called `new`, in a folder with spaces and letters beyond ASCII."""
    folder = tmp_path / "my räuns é"
    folder.mkdir()
    with tarfile.open(ROOT / "tests/fixtures/schema5.tar.gz") as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}],
    ids=["C", "ascii", "no home"],
)
def test_any_locale_and_no_home(run, environment):
    name = next((run / "stats").iterdir()).name
    keep = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    for script, words in (
        ("visualize_training.py", ["--run-name", name]),
        ("compare_runs.py", ["--run-names", name, "--save"]),
    ):
        result = subprocess.run(
            [sys.executable, ROOT / script, *words, "--output-dir", run],
            cwd=run,
            env=keep | environment,
            capture_output=True,
        )
        assert result.returncode == 0 and b"Traceback" not in result.stderr, result.stderr
    assert list((run / "stats").glob("*/training.png")) and list((run / "stats").glob("*.csv"))


def _stable_baselines3(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", '{"policy_class": {}}')
        archive.writestr("policy.pth", b"PK")
        archive.writestr("_stable_baselines3_version", "2.4.0")


def _whole_module(path):
    torch.save(torch.nn.Linear(2, 2), path)


def _weights_alone(path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)


def _pointer_of_git_lfs(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


def _pickle(path):
    path.write_bytes(pickle.dumps({"kind": "model"}))


@pytest.mark.parametrize(
    "write",
    [_stable_baselines3, _whole_module, _weights_alone, _pointer_of_git_lfs, _pickle],
)
def test_models_of_other_programs_are_refused_in_a_line(tmp_path, write):
    write(tmp_path / "model.pth")
    for script in ("eval_mario.py", "continue_training.py"):
        code, _, errors = call(script, ["--model-path", "model.pth"], tmp_path)
        assert code == 2 and errors.startswith("error: model.pth"), errors
        assert errors.count("\n") == 1 and len(errors) < 200
