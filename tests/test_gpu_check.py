"""`make gpu-check`, as far as a CPU goes."""

import csv
import json
import sys
import time
from types import SimpleNamespace

import pytest
import torch

import progressive_mario_trainer
from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check import check as checks
from benchmarks.gpu_check import commands, paths, speeds
from benchmarks.gpu_check.check import Check, Outcome, Part
from benchmarks.gpu_check.commands import Ended
from mario_rl.games.emulator import resolved
from mario_rl.storage.paths import RunPaths


@pytest.fixture
def check(tmp_path):
    return Check(torch.device("cpu"), tmp_path, time.monotonic() + 600)


def passed(part, check):
    """The outcomes by name; they are those of checks that passed."""
    outcomes = {outcome.name: outcome for outcome in part(check)}
    assert [each for each in outcomes.values() if each.passed is False] == []
    return outcomes


def test_without_a_gpu_it_ends_with_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as end:
        gpu_check.main([])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_package_it_names_it(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "_NEEDED", ("torch", "no_such_package"))
    with pytest.raises(SystemExit) as end:
        gpu_check.main(["--device", "cpu"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: no no_such_package: ")


def test_without_time_all_is_skipped_and_reported(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("OUT", str(tmp_path))
    assert gpu_check.main(["--device", "cpu", "--minutes", "0.15"]) == 0
    *_, last = lines = capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "gpu-check.json").read_text())
    skipped = [line for line in lines if line.startswith("skip  ")]
    assert len(skipped) == len(report["outcomes"]) == 11
    assert last.startswith("0 failed") and report["versions"]["torch"] == torch.__version__


def test_an_error_in_a_check_is_its_outcome(check):
    def run(check):
        yield Outcome("first", True, "")
        raise RuntimeError("CUDA error:\nillegal access")

    outcomes = list(Part("part", 0, run).outcomes(check))
    assert [(each.name, each.passed) for each in outcomes] == [("first", True), ("part", False)]
    assert outcomes[1].text == "RuntimeError: CUDA error: illegal access"
    assert next(Part("part", 0, run, needs_cuda=True).outcomes(check)).passed is None


def test_parts_of_the_program(check, monkeypatch):
    assert len(passed(paths.networks, check)) == 2
    assert len(passed(paths.frames, check)) == 2
    assert passed(paths.graph, check)["update as a CUDA graph"].figures["deviation"] == 0
    assert passed(speeds.updates, check)["update in float32"].figures["ms"] > 0


@pytest.mark.parametrize(
    ("part", "differs"), [(paths.networks, torch.float32), (paths.graph, "captured")]
)
def test_what_computes_something_else_fails(check, monkeypatch, part, differs):
    def other_learner(device, dtype, config=checks.CONFIG, name="dqn"):
        if differs in (dtype, name) and seen:
            config = config.replaced({"seed": 1})
        seen.append(name)
        return checks.new_learner(device, dtype, config, name)

    seen = []
    monkeypatch.setattr(paths, "new_learner", other_learner)
    assert next(part(check)).passed is False


def test_speed_of_the_loop(check, monkeypatch):
    monkeypatch.setattr(speeds, "_RATIOS", (8.0, 96.0))
    emulator = resolved("auto")
    usual = passed(speeds.loops(emulator), check)
    captured = passed(speeds.graph_loops, check)
    assert [*usual, *captured] == [
        f"loop on {emulator}, replay ratio 8", f"loop on {emulator}, replay ratio 96",
        f"loop on {emulator}, graph, replay ratio 96",
    ]  # fmt: skip
    assert all(each.figures["updates_per_s"] > 0 for each in (usual | captured).values())


class InProcess:
    """The training command, without a process of its own."""

    def __init__(self, check, run_name, *flags):
        argv = ["progressive_mario_trainer.py", "--run-name", run_name, "--plain"]
        device = [] if "--device" in flags else ["--device", "cpu"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                sys, "argv", [*argv, "--output-dir", str(check.directory), *device, *flags]
            )
            progressive_mario_trainer.main()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self):
        return Ended(0, "")


def test_runs_are_repeated_and_resumed(check, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(commands, "Command", InProcess)
    try:
        outcomes = passed(commands.commands, check)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)
    assert list(outcomes) == ["--deterministic", "resumed on another device"]


def test_a_command_that_fails_is_seen(check):
    ended = commands.Command(check, "a", "--stage", "1-0").wait()
    assert ended.code == 2 and "argument --stage: invalid choice" in ended.last_line


HEADER = ("env_steps", "hours", "eval_episodes", "clears", "is_best")
LUCKY = (10_000, 0.02, 20, 19, 1)  # not the hundred games
CLOSE = (20_000, 0.04, 100, 89, 1)
THERE = (30_000, 0.05, 100, 90, 1)


@pytest.mark.parametrize(
    ("rows", "ends", "reached", "text"),
    [
        ([LUCKY, CLOSE, THERE], None, True, "after 3.0 minutes and 30,000 env steps"),
        ([LUCKY, CLOSE], None, None, "not yet after 2.4 minutes and 20,000 env steps"),
        ([], None, None, "time was up"),
        ([LUCKY], Ended(2, "error: out of luck"), False, "exit code 2: error: out of luck"),
    ],
)
def test_minutes_to_the_goal(check, monkeypatch, rows, ends, reached, text):
    class Learns:
        def __init__(self, check, run_name, *flags):
            path = RunPaths(check.directory, run_name).evaluations_csv
            path.parent.mkdir(parents=True)
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([HEADER, *rows])
                file.write("40000,0.0")  # a row that is being written

        def running(self):
            return ends is None

        def wait(self):
            return ends

        def __enter__(self):
            return self

        def __exit__(self, *_):
            closed.append(self)

    clock, closed = [0.0], []
    fake = SimpleNamespace(
        monotonic=lambda: clock[0], sleep=lambda s: clock.append(clock.pop() + s)
    )
    monkeypatch.setattr(commands, "Command", Learns)
    monkeypatch.setattr(commands, "time", fake)
    monkeypatch.setattr(checks, "time", fake)
    (outcome,) = commands.learns(Check(check.device, check.directory, deadline=100.0))
    assert outcome.passed is reached and outcome.text.startswith(text)
    assert len(closed) == 1
