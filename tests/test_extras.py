"""Libraries that only some features need."""

import subprocess
import sys
import types

import pytest
from scripts import ROOT

from mario_rl.errors import UserError
from mario_rl.extras import import_extra

EXTRAS = (
    "huggingface_hub",
    "mlflow",
    "onnx",
    "plotly",
    "pygame",
    "safetensors",
    "trackio",
    "wandb",
)
SMALL = """
    --run-name run --stage 1-1 --num-envs 2 --batch-size 16 --learning-starts 60 --threads 1
    --replay-capacity 400 --stall-steps 8 --eval-episodes 1 --num-episodes 3 --replay-ratio 1
""".split()


# Runs the script that follows, as `python` does.
CODE = f"""
import runpy, sys
del sys.argv[0]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
assert not sys.modules.keys() & set({EXTRAS}), sys.modules.keys() & set({EXTRAS})
"""


def test_nothing_is_imported_that_was_not_asked_for(tmp_path):
    for script, *flags in (
        ["progressive_mario_trainer.py", *SMALL],
        [
            "eval_mario.py",
            "--model-path",
            "models/run.pth",
            "--episodes",
            "1",
            "--record",
            "--plot",
        ],
        ["visualize_training.py", "--run-name", "run"],
        ["compare_runs.py", "--run-names", "run", "--save"],
        ["continue_training.py", "--run-name", "next", "--max-steps", "10"],
    ):
        result = subprocess.run(
            [sys.executable, "-c", CODE, str(ROOT / script), *flags], cwd=tmp_path,
            capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""},
        )  # fmt: skip
        assert result.returncode == 0, (script, result.stderr)


def test_a_missing_library_and_one_that_does_not_work(monkeypatch):
    with pytest.raises(UserError, match=r"^reports need no-such: pip install no-such$"):
        import_extra("no_such_module.part", "reports", "no-such")
    broken = types.ModuleType("broken_module")
    broken.__path__ = []
    monkeypatch.setitem(sys.modules, "broken_module", broken)

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "broken_module.part":
                raise RuntimeError("compiled against another NumPy\nand more")

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    message = r"^reports need x, which does not work here \(compiled against another NumPy\): pip"
    with pytest.raises(UserError, match=message):
        import_extra("broken_module.part", "reports", "x")
