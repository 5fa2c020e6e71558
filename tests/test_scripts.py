"""The scripts as processes on the real game, as a user runs them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread
from scripts import call

from mario_rl.agent.saved_model import SavedModel
from mario_rl.cli import run_script
from mario_rl.games.workers import WorkerGames
from mario_rl.registry import BACKENDS
from mario_rl.reports import playback
from mario_rl.storage.checkpoint import Checkpoint, CheckpointStore
from mario_rl.storage.plain import to_plain
from mario_rl.training.state import RunState

ROOT = Path(__file__).parent.parent
TRAIN = "progressive_mario_trainer.py"
# With seed 6 the untrained policy walks; with 0 it stands.
SMALL = """
    --stage 1-1 --seed 6 --num-envs 2 --batch-size 16 --learning-starts 60 --replay-capacity 400
    --stall-steps 8 --eps-decay 300 --eval-episodes 2 --eval-interval 500
    --checkpoint-interval 2 --replay-ratio 1 --lr-decay 100 --threads 1 --no-record-best
""".split()


def run(folder, script, *flags, stderr=False):
    """Run a script in a folder; returns its output. Only with `stderr` may it write there."""
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert stderr or result.stderr == ""
    return result.stdout


def error_of(folder, script, *flags):
    """Run a script, which must fail; returns its error, which must be one line."""
    code, _, errors = call(script, list(map(str, flags)), folder)
    assert code == 2 and len(errors.strip().splitlines()) == 1, errors
    return errors


def checkpoint_of(folder, name) -> Checkpoint[RunState]:
    """The newest of a run."""
    return CheckpointStore(folder / "checkpoints" / name).load(RunState.from_file)


def start(folder, *flags):
    command = [sys.executable, str(ROOT / TRAIN), *map(str, flags)]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_checkpoint(folder, name, number):
    manifest = folder / "checkpoints" / name / f"{number:06}.json"
    deadline = time.monotonic() + 60
    while not manifest.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(folder):
    """A finished run called "first"; its output."""
    flags = [*SMALL, "--record-best"]
    return run(folder, TRAIN, "--run-name", "first", "--num-episodes", 12, *flags)


def weights(folder, name):
    return torch.load(folder / "models" / f"{name}.pth", weights_only=True)["weights"]


def test_train_writes_everything(folder, trained):
    assert "device: CPU (--gpu-memory-fraction has no effect here)" in trained
    assert re.search(r"replay: 400 transitions, 0\.\d\d GiB of", trained)
    assert re.search(r"episode 1[2-9]/12 .*epsilon 0\.\d+ .*  best 0% cleared  .*left", trained)
    assert "best model: models/first.pth" in trained
    stats = folder / "stats" / "first"
    episodes = pd.read_csv(stats / "episodes.csv")
    assert len(episodes) >= 12 and list(episodes.episode) == list(range(1, len(episodes) + 1))
    assert set(episodes.outcome) <= {"clear", "death", "time_up", "stall"}
    assert episodes.max_x.min() >= 40 and episodes.env_steps.is_monotonic_increasing
    assert set(episodes[episodes.start_step > 0].env) == {0}, "half of the games retry"
    updates = pd.read_csv(stats / "updates.csv")
    assert len(updates) and np.isfinite(updates.loss).all() and updates.updates.iloc[-1] > 1
    evaluations = pd.read_csv(stats / "evaluations.csv")
    assert evaluations.env_steps.iloc[-1] >= episodes.env_steps.iloc[-1]
    assert evaluations.is_best.iloc[0] == 1
    config = json.loads((stats / "config.json").read_text())
    assert config["env"]["stage"] == "1-1" and config["run"]["num_episodes"] == 12
    description = json.loads((stats / "run.json").read_text())
    assert (description["lineage"]["iteration"], description["lineage"]["parents"]) == (1, [])
    assert "--run-name first" in description["sessions"][0]["command"]
    assert list((stats / "tensorboard").glob("events.out.tfevents.*"))


def test_every_best_model_has_a_video(folder, trained):
    evaluations = pd.read_csv(folder / "stats/first/evaluations.csv")
    best = evaluations[evaluations.is_best == 1]
    names = [f"first_best_{steps:09}.mp4" for steps in best.env_steps]
    assert sorted(path.name for path in (folder / "videos").glob("first_best_*")) == names
    for name in names:
        with av.open(str(folder / "videos" / name)) as video:
            frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        assert len(frames) > 8 and frames[0].shape == (240, 256, 3)
        sky = np.array([104, 136, 252])  # of 1-1
        assert np.abs(frames[-1][100, 10] - sky).max() < 12


def test_a_video_that_cannot_be_written_does_not_stop_a_run(tmp_path):
    (tmp_path / "videos").write_text("in the way")
    flags = [*SMALL, "--record-best"]
    code, output, errors = call(TRAIN, ["--run-name", "a", "--num-episodes", "4", *flags], tmp_path)
    assert code == 0 and "best model: models/a.pth" in output
    assert errors.count("\n") == 1 and errors.startswith("warning: no video of the best model: ")
    assert "records no more" in errors


@pytest.mark.parametrize("error", [AttributeError("no av.error"), MemoryError()])
def test_a_video_that_fails_in_any_way_does_not_stop_a_run(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("mario_rl.training.session.record_game", fail)
    flags = [*SMALL, "--record-best"]
    code, _, errors = call(TRAIN, ["--run-name", "a", "--num-episodes", "4", *flags], tmp_path)
    assert code == 0 and errors.count("\n") == 1 and "records no more" in errors


def test_existing_run_is_never_overwritten(folder, trained):
    before = (folder / "stats/first/episodes.csv").read_bytes()
    error = error_of(folder, TRAIN, "--run-name", "first", *SMALL)
    assert "--resume" in error and "another --run-name" in error
    assert (folder / "stats/first/episodes.csv").read_bytes() == before


def test_signal_saves_and_tells_how_to_resume(folder):
    process = start(folder, "--run-name", "stopped", "--num-episodes", 500, *SMALL)
    wait_for_checkpoint(folder, "stopped", 2)
    second = error_of(folder, TRAIN, "--run-name", "stopped", "--resume")
    assert "is being trained by process" in second and "lock" in second
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in output, output
    command = output.split("go on with: ")[1].strip()
    assert "\n" not in command
    episodes = len(pd.read_csv(folder / "stats" / "stopped" / "episodes.csv"))
    command += f" --num-episodes {episodes + 1}"
    result = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"resumed at {episodes} episodes" in result.stdout


def test_resume_keeps_the_settings(folder, trained):
    error = error_of(folder, TRAIN, "--run-name", "first", "--resume", "--gamma", 0.5)
    assert "--gamma 0.5" in error and "0.97" in error
    error = error_of(folder, TRAIN, "--run-name", "none", "--resume")
    assert "first" in error


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--gamma", "1.5"], ["--gamma 1.5", "[0, 1)"]),
        (["--batch-size", "many"], ["--batch-size", "many"]),
        (["--stage", "9-9"], ["--stage", "8-4"]),
        (["--replay-capacity", "99999999"], ["--replay-capacity 99999999", "use at most"]),
        (["--unknown"], ["--unknown"]),
        (["--run-name", "../x"], ["--run-name"]),
    ],
)
def test_bad_flags_are_one_line(tmp_path, flags, words):
    error = error_of(tmp_path, TRAIN, "--run-name", "bad", *flags)
    assert all(word in error for word in words)
    assert not list(tmp_path.glob("*/bad*/*.*"))


def test_errors_of_the_system_are_one_line(capsys):
    def main():
        raise OSError(28, "No space left on device", "stats/a.png")

    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error and "stats/a.png" in error
    assert len(error.splitlines()) == 1


def test_continue_prints_a_command_that_works(folder, trained):
    output = run(folder, "continue_training.py", "--iteration", 2, "--num-episodes", 3,
                 "--run-name", "second")  # fmt: skip
    assert re.search(r"^> \S+ +1  1-1", output, re.MULTILINE), "the chosen candidate"
    assert "epsilon 0.1" in output and "optimizer continued" in output
    command = output.strip().splitlines()[-1]
    result = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "evaluation at 0 steps" in result.stdout
    before, after = (
        json.loads((folder / f"stats/{name}/config.json").read_text())
        for name in ("first", "second")
    )
    assert after["learner"]["learning_rate"] < before["learner"]["learning_rate"]
    assert after["learner"]["lr_decay"] == 0
    exponents = [config["replay"]["importance_exponent"] for config in (before, after)]
    assert exponents[0] < exponents[1] <= 1
    description = json.loads((folder / "stats/second/run.json").read_text())
    assert "continue_training.py --iteration 2" in description["command"]
    assert "--resume" in description["sessions"][0]["command"]
    assert description["lineage"]["iteration"] == 2
    (parent,) = description["lineage"]["parents"]
    updates = SavedModel.load(folder / f"models/{parent['run_name']}.pth").evaluation.updates
    state = checkpoint_of(folder, "second").state
    new_updates = state.progress.trainer.updates
    assert updates > 0 < new_updates
    assert state.learner.averaged_updates == updates + new_updates
    second = SavedModel.load(folder / "models/second.pth")
    assert second.averaged_updates == updates + second.evaluation.updates
    words = ["--model-path", "models/second.pth", "--reset-optimizer", "--num-episodes", "2"]
    _, output, _ = call("continue_training.py", [*words, "--start"], folder)
    assert "optimizer reset" in output and "best model: models/second-iter3.pth" in output
    state = checkpoint_of(folder, "second-iter3").state
    new_updates = state.progress.trainer.updates
    assert state.learner.averaged_updates == second.averaged_updates + new_updates
    description = json.loads((folder / "stats/second-iter3/run.json").read_text())
    assert [parent["iteration"] for parent in description["lineage"]["parents"]] == [1, 2]


def test_continued_run_begins_with_the_replay(folder, trained, tmp_path):
    flags = ["--model-path", "models/first.pth", "--run-name"]
    words = [*flags, "third", "--num-episodes", "2"]
    _, output, _ = call("continue_training.py", words, folder)
    assert "replay of 'first'" in output
    before, after = checkpoint_of(folder, "first"), checkpoint_of(folder, "third")
    expected = vars(before.state.progress.trainer.replay)
    for name, value in expected.items():
        assert np.array_equal(getattr(after.state.replay, name), value), name
    frames = [np.concatenate([block for _, block in c.frames]) for c in (before, after)]
    assert np.array_equal(*frames) and frames[0].any()

    # From a run that has no other replay than this.
    third = replace(
        SavedModel.load(folder / "models/first.pth"), run_name="third", lineage=after.state.lineage
    )
    third.save(tmp_path / "third.pth")
    words = ["--model-path", str(tmp_path / "third.pth"), "--run-name", "heir"]
    _, output, _ = call("continue_training.py", words, folder)
    assert "replay of 'third'" in output
    inherited = checkpoint_of(folder, "heir").state.replay
    assert all(np.array_equal(getattr(inherited, name), value) for name, value in expected.items())

    run(folder, TRAIN, "--run-name", "third", "--resume")
    progress = checkpoint_of(folder, "third").state.progress
    new_rows = progress.trainer.replay.rows_written - expected["rows_written"]
    assert progress.trainer.env_steps / 2 <= new_rows < expected["rows_written"]

    _, output, _ = call("continue_training.py", [*flags, "fourth", "--gamma", "0.5"], folder)
    assert "replay empty: --gamma was 0.97, and is 0.5" in output
    _, output, _ = call("continue_training.py", [*flags, "elsewhere", "--stage", "1-2"], folder)
    assert "replay empty: --stage was 1-1, and is 1-2" in output
    averaged = [
        checkpoint_of(folder, name).state.learner.averaged_updates
        for name in ("fourth", "elsewhere")
    ]
    assert averaged[0] > 0 == averaged[1]
    shutil.copytree(folder / "models", tmp_path / "models")
    _, output, _ = call("continue_training.py", [*flags, "fifth"], tmp_path)
    assert "replay empty: checkpoints/first holds no checkpoint" in output
    # As of a run that was stopped before its first step.
    state = to_plain(replace(before.state, progress=None))
    store = CheckpointStore(tmp_path / "checkpoints" / "first", before.state.lineage.run_id)
    store.save(state, range(0), range(0), lambda _: [])
    _, output, _ = call("continue_training.py", [*flags, "sixth"], tmp_path)
    assert "replay empty: run 'first' has not played yet" in output


def test_continue_refuses_what_does_not_fit(folder, trained, tmp_path):
    for flag, value, trained_with in (
        ("--action-set", "right", "simple"), ("--network-width", "1", "0.5"),
        ("--view", "screen", "mario"), ("--pixels", "grey", "red"), ("--reward-scale", "1", "0.03"),
        ("--num-quantiles", "1", "32"),
    ):  # fmt: skip
        error = error_of(folder, "continue_training.py", "--model-path", "models/first.pth",
                         flag, value)  # fmt: skip
        assert f"{flag} {value}" in error and trained_with in error
    error = error_of(tmp_path, "continue_training.py", "--iteration", 2)
    assert "progressive_mario_trainer.py" in error
    error = error_of(folder, "continue_training.py", "--model-path", "models/first.pth",
                     "--run-name", "first")  # fmt: skip
    assert "exists" in error


def test_evaluate_records_every_frame_and_plots(folder, trained):
    output = run(folder, "eval_mario.py", "--model-path", "models/first.pth", "--record", "--plot",
                 "--max-steps", 20)  # fmt: skip
    video = folder / re.search(r"video: (.*mp4)", output).group(1)
    steps = int(re.search(r"(\d+) steps", output).group(1))
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height) == (768, 720)
        assert stream.average_rate == 60
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 4 * steps
    sky = frames[0][300:310, 300:310].mean(axis=(0, 1))
    assert sky[2] > 200 > sky[0], "World 1-1 has a blue sky"
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 1, "nothing moved"
    picture = imread(folder / re.search(r"plot: (.*png)", output).group(1))
    assert picture.shape[0] > 600 and picture.std() > 0.05
    again = run(folder, "eval_mario.py", "--model-path", "models/first.pth", "--plot",
                "--episodes", 2, "--max-steps", 5)  # fmt: skip
    assert "_2.png" in again, "an earlier plot is not overwritten"


def test_several_recorded_games_differ(folder, trained):
    words = "--model-path models/first.pth --json --record --max-steps 5 --episodes".split()
    reports = [json.loads(call("eval_mario.py", [*words, n], folder)[1]) for n in ("1", "3")]
    assert [(report["epsilon"], report["noops"]) for report in reports] == [(0, 0), (0.01, 30)]
    assert len({episode["noop_frames"] for episode in reports[1]["episodes"]}) > 1
    assert all(report["max_steps"] == 5 for report in reports)


def test_evaluation_as_json_works_from_the_file_alone(folder, trained, tmp_path):
    model = tmp_path / "elsewhere.pth"
    model.write_bytes((folder / "models" / "first.pth").read_bytes())
    words = ["--model-path", str(model), "--json", "--episodes", "2", "--max-steps", "15",
             "--seed", "5"]  # fmt: skip
    reports = [json.loads(run(tmp_path, "eval_mario.py", *words, stderr=True))]
    reports.append(json.loads(call("eval_mario.py", words, tmp_path)[1]))
    assert reports[0] == reports[1]
    assert reports[0]["evaluation"]["eval_episodes"] == 2
    assert len({episode["noop_frames"] for episode in reports[0]["episodes"]}) > 1
    assert all(episode["length_steps"] <= 15 for episode in reports[0]["episodes"])


def test_evaluate_says_what_is_wrong_in_one_line(folder, trained, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    model = "models/first.pth"
    error = error_of(folder, "eval_mario.py", "--model-path", model, "--render")
    assert "display" in error and "--record" in error
    for flags in (["--model-path", "none.pth"], ["--model-path", "stats/first/run.json"],
                  ["--model-path", model, "--epsilon", "2"]):  # fmt: skip
        error_of(folder, "eval_mario.py", *flags)


def test_an_interrupted_evaluation_shows_the_finished_games(folder, trained):
    words = ["--model-path", "models/first.pth", "--json", "--record", "--plot", "--episodes",
             "500", "--max-steps", "20", "--output-dir", "interrupted"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "eval_mario.py"), *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines = [process.stderr.readline() for _ in range(2)]
    assert lines[1].startswith("episode 2: ")
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    report = json.loads(output)
    finished = report["evaluation"]["eval_episodes"]
    assert 2 <= finished == len(report["episodes"]) < 500
    assert f"interrupted after {finished} of 500 games" in errors
    assert f"cleared 0 of {finished}" in errors and "Traceback" not in errors
    videos = folder / "interrupted" / "videos"
    assert sorted(path.suffix for path in videos.iterdir()) == [".mp4", ".png"]
    with av.open(str(next(videos.glob("*.mp4")))) as container:
        assert sum(1 for _ in container.decode(container.streams.video[0])) >= 4 * 40


def test_a_game_on_which_an_evaluation_is_interrupted_does_not_count(folder, trained):
    model = folder / "models" / "first.pth"
    request = playback.Request(
        model_path=model, output_dir=folder / "third", episodes=50, noops=0, record=True
    )
    lines, decisions_in_third = [], []

    def interrupted():
        if len(lines) >= 2:
            decisions_in_third.append(1)
        return len(decisions_in_third) > 4

    report = playback.evaluate_model(request, lines.append, interrupted)
    assert [line.split(":")[0] for line in lines[:2]] == ["episode 1", "episode 2"]
    assert report["evaluation"]["eval_episodes"] == len(report["episodes"]) == 2
    assert not any(line.startswith("episode 3") for line in lines)


def test_an_evaluation_interrupted_in_its_first_game_shows_nothing(folder, trained):
    model = folder / "models" / "first.pth"
    request = playback.Request(
        model_path=model, output_dir=folder / "none", episodes=1, noops=0, plot=True
    )
    lines, steps = [], []
    with pytest.raises(KeyboardInterrupt):
        playback.evaluate_model(request, lines.append, lambda: steps.append(0) or len(steps) > 5)
    assert lines == [] and not (folder / "none").exists()


def test_without_a_display_there_is_still_a_recording(folder, trained, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":987")  # as in tmux, when the session of the display has ended
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    words = ["--model-path", "models/first.pth", "--render", "--max-steps", "5"]
    error = error_of(folder, "eval_mario.py", *words)
    assert "display" in error and "--record" in error
    code, output, errors = call("eval_mario.py", [*words, "--record"], folder)
    assert code == 0 and Path(folder, re.search(r"video: (.*mp4)", output)[1]).exists()
    assert errors.startswith("warning: there is no display") and errors.count("\n") == 1


def test_a_worker_that_dies_does_not_spoil_the_json(folder, trained, monkeypatch):
    class DyingGames(WorkerGames):
        def step_wait(self):
            if len(self.positions[0].actions) == 1:
                os.kill(self.pids()[0], signal.SIGKILL)
            return super().step_wait()

    words = ["--model-path", "models/first.pth", "--json", "--episodes", "1", "--max-steps", "3"]
    expected = call("eval_mario.py", words, folder)[1]
    monkeypatch.setitem(BACKENDS._parts, "workers", DyingGames)
    code, output, errors = call("eval_mario.py", words, folder)
    assert code == 0 and output == expected and "takes its games up" in errors


def close_window_after(frames, monkeypatch):
    class ClosedWindow:
        def __init__(self, title, delay):
            self.frames = 0

        def show(self, frame):
            self.frames += 1

        def is_closed(self):
            return self.frames >= frames

        def close(self):
            pass

    monkeypatch.setattr(playback, "Window", ClosedWindow)


def test_a_window_closed_before_the_first_decision(folder, trained, monkeypatch):
    close_window_after(1, monkeypatch)
    error = error_of(folder, "eval_mario.py", "--model-path", "models/first.pth", "--render",
                     "--plot", "--noops", 30)  # fmt: skip
    assert "before the first decision" in error


@pytest.mark.parametrize("frames, finished", [(10, 0), (30, 1), (1_000, 2)])
def test_a_game_on_which_the_window_is_closed_does_not_count(
    folder, trained, monkeypatch, frames, finished
):
    close_window_after(frames, monkeypatch)
    words = ["--model-path", "models/first.pth", "--render", "--json", "--episodes", "2",
             "--noops", "0", "--max-steps", "5"]  # fmt: skip
    code, output, errors = call("eval_mario.py", words, folder)
    report = json.loads(output)
    assert code == 0
    assert sum(episode["length_steps"] == 5 for episode in report["episodes"]) == finished
    if finished:
        assert report["evaluation"]["eval_episodes"] == finished
        assert f"cleared 0 of {finished}" in errors
    else:
        assert report["evaluation"] is None and "no game was played to its end" in errors


def test_render_opens_a_window(folder, trained, display):
    output = run(folder, "eval_mario.py", "--model-path", "models/first.pth", "--render",
                 "--delay", "0", "--max-steps", "5")  # fmt: skip
    assert "5 steps" in output
