"""What is installed: the wheel, its commands, and the models in it."""

import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from scripts import ROOT, call

import mario_rl
from mario_rl.agent.shipped import shipped_model
from mario_rl.config import Config
from mario_rl.errors import UserError
from mario_rl.games.emulator import INSTALL_FCEUMM, resolved
from mario_rl.storage.paths import RunPaths
from mario_rl.training.preflight import check_machine
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


# The fast emulator, which not every machine has

PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def stable_retro_in(file):
    """The requirement of that name."""
    lines = (ROOT / file).read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("stable-retro"))
    return Requirement(line)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("system", "machine", "has_wheels"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", False),
        ("darwin", "arm64", True),
        ("darwin", "x86_64", False),
        ("win32", "AMD64", False),
        ("win32", "x86_64", False),
        ("linux", "arm64", False),
    ],
)
def test_stable_retro_is_required_once_where_it_has_wheels(python, system, machine, has_wheels):
    environment = {"python_version": python, "sys_platform": system, "platform_machine": machine}
    with_pip, alone = (
        stable_retro_in(file).marker.evaluate(environment)
        for file in ("requirements.txt", "requirements-no-deps.txt")
    )
    assert (with_pip, alone) == (has_wheels and python != "3.13", has_wheels and python == "3.13")


def test_the_wheel_requires_stable_retro_as_the_requirements_do(site):
    (metadata,) = importlib.metadata.distributions(path=[str(site)])
    assert stable_retro_in("requirements.txt") in map(Requirement, metadata.requires)


@pytest.fixture
def without_stable_retro(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_retro", None)


def test_without_stable_retro_auto_means_nes_py(without_stable_retro):
    assert resolved("auto") == resolved("nes-py") == "nes-py"


def test_without_stable_retro_the_package_plays():
    code = """if True:
        import sys
        sys.modules["stable_retro"] = None
        import mario_rl
        env = mario_rl.SuperMarioBros("1-1")
        env.reset()
        print(env.step(1)[4]["outcome"])
    """
    run = [sys.executable, "-c", code]
    result = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("running\n", "")


@pytest.mark.parametrize(
    ("script", "flags"),
    [("progressive_mario_trainer.py", "--run-name a"), ("eval_mario.py", "--model-path 1-1")],
)
def test_fceumm_without_stable_retro_is_answered_with_its_pip_command(
    without_stable_retro, tmp_path, script, flags
):
    words = f"{flags} --emulator fceumm --max-steps 1".split()
    code, _, errors = call(script, words, tmp_path)
    requirement = stable_retro_in("requirements-no-deps.txt")
    command = f"pip install --no-deps {requirement.name}{requirement.specifier}"
    assert code == 2 and errors.startswith("error: --emulator fceumm needs stable-retro, ")
    assert errors.endswith(f": {command}\n") and errors.count("\n") == 1
    RunPaths(tmp_path, "a").require_new()  # nothing is in the way of the next try


def test_a_run_of_fceumm_is_not_resumed_without_stable_retro(without_stable_retro, tmp_path):
    config = Config().replaced({"emulator": "fceumm"})
    with pytest.raises(UserError, match=INSTALL_FCEUMM):
        check_machine(RunPaths(tmp_path, "a"), config, {})
