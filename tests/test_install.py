"""What is installed: the wheel, its commands, and the models in it."""

import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from scripts import ROOT, call

import mario_rl
from mario_rl.agent.shipped import shipped_model
from mario_rl.errors import UserError
from mario_rl.storage.paths import RunPaths
from mario_rl.training.resume_command import resume_command

STAGES = sorted(path.stem for path in (ROOT / "pretrained").glob("*.pth"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the wheel is installed, without what it depends on."""
    source, wheels, other = (tmp_path_factory.mktemp(name) for name in ("src", "whl", "other"))
    target = other / "site"
    # A copy: setuptools leaves files where it builds, and finds those of earlier builds.
    for name in ("mario_rl", "pretrained"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for path in [*ROOT.glob("*.*"), ROOT / "LICENSE"]:
        if path.is_file():
            shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    # As in a virtual environment that lies in the checkout of another project.
    git = ["git", "-C", target.parent, "-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "other"], check=True)
    return target


def run(site, folder, command, *flags):
    """Run an installed command in a folder; returns its output."""
    result = subprocess.run(
        [site / "bin" / command, *map(str, flags)],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_holds_the_package_the_scripts_and_the_models(site):
    def names(folder):
        files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        return {str(file) for file in files if "__pycache__" not in file.parts}

    assert names(site / "mario_rl") - names(ROOT / "mario_rl") == {
        f"pretrained/{stage}.{suffix}" for stage in STAGES for suffix in ("pth", "json")
    }
    assert names(ROOT / "mario_rl") <= names(site / "mario_rl") and "py.typed" in names(
        site / "mario_rl"
    )
    scripts = {path.name for path in ROOT.glob("*.py")}
    assert {path.name for path in site.glob("*.py")} == scripts
    (metadata,) = importlib.metadata.distributions(path=[str(site)])
    assert metadata.version == mario_rl.__version__
    commands = {entry.module + ".py": entry.name for entry in metadata.entry_points}
    assert set(commands) == scripts
    top = {path.name for path in site.iterdir()} - {"__pycache__", "bin", "mario_rl"} - scripts
    assert top == {f"mario_rl-{metadata.version}.dist-info"}


@pytest.mark.parametrize(
    "command", ["mario-train", "mario-continue", "mario-plot", "mario-compare", "mario-eval"]
)
def test_every_command_has_the_help_of_its_script(site, tmp_path, command):
    assert run(site, tmp_path, command, "--help").startswith(f"usage: {command} ")


def test_installed_commands_play_and_train(site, tmp_path):
    """Outside the checkout, with worker processes, and told how to go on by the same commands."""
    flags = "--model-path 1-1 --episodes 1 --max-steps 3 --json".split()
    report = json.loads(run(site, tmp_path, "mario-eval", *flags))
    assert report["model"] == str(site / "mario_rl" / "pretrained" / "1-1.pth")
    assert report["episodes"][0]["length_steps"] == 3

    small = "--max-steps 16 --eval-episodes 1 --num-envs 2 --stall-steps 5 --stage 4-4"
    flags = f"--model-path 1-1 --run-name next {small}".split()
    command = shlex.split(run(site, tmp_path, "mario-continue", *flags).splitlines()[-1])
    assert command == [str(site / "bin" / "mario-train"), "--run-name", "next", "--resume"]
    output = run(site, tmp_path, *command)
    assert "finished:" in output
    assert json.loads((tmp_path / "stats/next/run.json").read_text())["git_commit"] is None


@pytest.mark.parametrize("in_path", [False, True])
def test_a_run_goes_on_as_it_was_started(tmp_path, monkeypatch, in_path):
    def resumed(started, output_dir="."):
        monkeypatch.setattr(sys, "argv", [str(started), "--run-name", "a"])
        return resume_command(RunPaths(output_dir, "a"))

    folder = tmp_path / "a b"
    folder.mkdir()
    for name in ("mario-train", "mario-continue"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(folder if in_path else tmp_path))
    expected = "mario-train" if in_path else f"'{folder}/mario-train'"
    assert resumed(folder / "mario-train") == f"{expected} --run-name a --resume"
    assert resumed(folder / "mario-continue") == f"{expected} --run-name a --resume"
    script = shlex.split(resumed("progressive_mario_trainer.py", tmp_path))
    assert (ROOT / script[1]).samefile(ROOT / "progressive_mario_trainer.py")
    assert script[2:] == ["--run-name", "a", "--resume", "--output-dir", str(tmp_path)]


@pytest.mark.parametrize("stage", STAGES)
def test_shipped_models_are_found_by_name(stage):
    assert shipped_model(stage).samefile(ROOT / "pretrained" / f"{stage}.pth")


@pytest.mark.parametrize("name", ["9-9", "", "../1-1", "1-1.pth"])
def test_a_name_that_no_shipped_model_has_is_answered_with_those_there_are(name):
    with pytest.raises(UserError, match=", ".join(STAGES)):
        shipped_model(name)


def test_a_file_is_preferred_to_a_shipped_model(tmp_path):
    (tmp_path / "1-1").write_bytes(b"not a model")
    words = ["--model-path", "1-1", "--episodes", "1"]
    code, _, errors = call("eval_mario.py", words, tmp_path)
    assert code == 2 and "1-1 is damaged" in errors


@pytest.mark.parametrize("script", ["eval_mario.py", "continue_training.py"])
def test_neither_a_file_nor_a_shipped_model(tmp_path, script):
    code, _, errors = call(script, ["--model-path", "9-9"], tmp_path)
    assert code == 2 and errors.startswith("error: 9-9: no such file, and ")
    code, _, errors = call(script, ["--model-path", "models/9-9.pth"], tmp_path)
    assert (code, errors) == (2, "error: models/9-9.pth: no such file\n")
