"""Many runs from one file."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from scripts import ROOT

from mario_rl.errors import UserError
from mario_rl.storage.checkpoint import CheckpointStore
from mario_rl.sweep import read_sweep
from mario_rl.training.state import RunState

SETTINGS = """
name: tiny
settings:
  stage: 1-1
  num_envs: 2
  batch_size: 16
  learning_starts: 60
  replay_capacity: 400
  stall_steps: 8
  eval_episodes: 2
  checkpoint_interval: 2
  replay_ratio: 1
  threads: 1
  record_best: false
  num_episodes: {episodes}
grid:
  seed: [6, 7, 8]
"""


def write(folder, episodes=4, more=""):
    path = folder / "sweep.yaml"
    path.write_text(SETTINGS.format(episodes=episodes) + more)
    return path


def sweep(folder, *flags):
    command = [sys.executable, "-m", "mario_rl.sweep", str(folder / "sweep.yaml")]
    command += ["--output-dir", str(folder), *flags]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def episodes_of(folder, name):
    return len((folder / "stats" / name / "episodes.csv").read_text().splitlines()) - 1


@pytest.mark.parametrize("path", (ROOT / "recipes/sweeps").glob("*.yaml"), ids=lambda p: p.stem)
def test_shipped_sweeps_can_be_run(path):
    name, runs = read_sweep(path)
    assert name == path.stem and len(runs) > 1


def test_every_combination_is_a_run(tmp_path):
    more = "  gamma: [0.9, 0.97]\n"
    name, runs = read_sweep(write(tmp_path, more=more))
    assert name == "tiny" and len(runs) == 6
    assert [run.name for run in runs[:2]] == ["tiny_seed-6_gamma-0.9", "tiny_seed-6_gamma-0.97"]
    assert {(run.config.run.seed, run.config.learner.gamma) for run in runs} == {
        (seed, gamma) for seed in (6, 7, 8) for gamma in (0.9, 0.97)
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("girds: {}", "there is no 'girds'; did you mean grid?"),
        ("grid: {sed: [1]}", "there is no setting 'sed'; did you mean seed?"),
        ("grid: {seed: 3}", "'seed' must be a list"),
        ("grid: {gamma: [0.9, 2]}", "--gamma 2"),
        ("settings: {seed: 1}\ngrid: {seed: [1]}", "seed is in settings and in grid"),
        ("grid: {seed: [1, 1]}", "two runs would be called"),
        ("settings: 3", "settings must hold lines"),
        ("name: ../x", "it would name a run so: --run-name"),
        ("name:", "name: None is not a text"),
        ("settings: []", "settings must hold lines"),
        ("settings: {seed: 2024-13-45}", "is not YAML"),
        ("grid: {seed: [[1], [2]]}", "'seed' must be a list"),
        ("[", "is not YAML"),
        ("grid: {seed: &a [1, *a]}", "seed"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_sweep(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_runs_are_trained_and_not_again(tmp_path):
    write(tmp_path)
    process = sweep(tmp_path, "--jobs", "2")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("finished") == 3 and "best clear rate" in output
    sizes = [episodes_of(tmp_path, f"tiny_seed-{seed}") for seed in (6, 7, 8)]
    assert all(size >= 4 for size in sizes)

    started = time.monotonic()
    process = sweep(tmp_path)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "best clear rate" in output, errors
    assert "running" not in output
    assert [episodes_of(tmp_path, f"tiny_seed-{seed}") for seed in (6, 7, 8)] == sizes
    assert time.monotonic() - started < 30

    write(tmp_path, episodes=8)  # a larger budget lets them go on
    process = sweep(tmp_path, "--jobs", "2")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert all(episodes_of(tmp_path, f"tiny_seed-{seed}") >= 8 for seed in (6, 7, 8))


def test_a_sweep_that_is_killed_goes_on(tmp_path):
    write(tmp_path, episodes=40)
    process = sweep(tmp_path, "--jobs", "2")
    store = CheckpointStore(tmp_path / "checkpoints" / "tiny_seed-6")
    deadline = time.monotonic() + 60
    while not (tmp_path / "checkpoints/tiny_seed-6/000003.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30  # its runs save and end, too
    while subprocess.run(["pgrep", "-f", f"--output-dir {tmp_path}"], capture_output=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = store.load(RunState.from_file).state.progress.trainer.env_steps
    assert before > 0 and episodes_of(tmp_path, "tiny_seed-6") < 40
    process = sweep(tmp_path, "--jobs", "2")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert all(episodes_of(tmp_path, f"tiny_seed-{seed}") >= 40 for seed in (6, 7, 8))
    log = (tmp_path / "sweeps/tiny/tiny_seed-6.log").read_text()
    assert "resumed at" in log


def test_a_run_that_fails_does_not_stop_the_others(tmp_path):
    write(tmp_path)
    (tmp_path / "stats").mkdir()
    (tmp_path / "stats" / "tiny_seed-7").write_text("in the way")
    process = sweep(tmp_path)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and output.count(": finished") == 2
    assert errors.count("\n") == 1 and "1 of 3 runs failed (--retry): tiny_seed-7: error:" in errors
    (tmp_path / "stats" / "tiny_seed-7").unlink()
    again = sweep(tmp_path)
    _, errors = again.communicate(timeout=60)
    assert again.returncode == 2, "it is not tried again unless asked"
    process = sweep(tmp_path, "--retry")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    state = json.loads((tmp_path / "sweeps/tiny/state.json").read_text())
    assert state["tiny_seed-7"]["status"] == "finished"


def test_one_process_has_a_sweep_and_an_early_ctrl_c_is_no_failure(tmp_path):
    write(tmp_path, episodes=1000)
    first = sweep(tmp_path, "--jobs", "2")
    deadline = time.monotonic() + 60
    while not (tmp_path / "sweeps/tiny/tiny_seed-7.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = sweep(tmp_path)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 2 and "is being trained by process" in errors
    assert errors.count("\n") == 1
    first.send_signal(signal.SIGINT)
    output, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    assert "failed" not in output + errors and "go on with: " in output + errors
    state = json.loads((tmp_path / "sweeps/tiny/state.json").read_text())
    assert {state[f"tiny_seed-{n}"]["status"] for n in (6, 7)} == {"stopped"}


@pytest.mark.parametrize("entry", [5, None, ["finished"], {"status": "odd"}])
def test_a_state_of_other_types_is_refused(tmp_path, entry):
    write(tmp_path)
    (tmp_path / "sweeps/tiny").mkdir(parents=True)
    (tmp_path / "sweeps/tiny/state.json").write_text(json.dumps({"tiny_seed-6": entry}))
    process = sweep(tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and errors.count("\n") == 1 and "is damaged" in errors


def test_the_runs_share_the_cores(tmp_path):
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("needs two cores")
    write(tmp_path, episodes=1000)
    process = sweep(tmp_path, "--jobs", "2")
    deadline = time.monotonic() + 60
    found = []
    while len(found) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        result = subprocess.run(
            ["pgrep", "-f", f"progressive_mario_trainer.*--output-dir {tmp_path}"],
            capture_output=True, text=True,
        )  # fmt: skip
        found = [sorted(os.sched_getaffinity(int(pid))) for pid in result.stdout.split()]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    half = len(cores) // 2
    assert sorted(found)[:2] == [cores[:half], cores[half : 2 * half]] or len(found) > 2
