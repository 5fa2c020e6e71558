"""Games in worker processes, on the real game."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from mario_rl.config import EnvConfig
from mario_rl.errors import WorkerDied
from mario_rl.games import workers as workers_module
from mario_rl.games.interface import IDLE, NOOP, RESET, RETRY
from mario_rl.games.mario_game import MarioGame
from mario_rl.games.serial import SerialGames
from mario_rl.games.workers import WorkerGames

CONFIG = EnvConfig(stage="1-1", stall_steps=8)
NUM_ENVS = 3
NUM_RETRYING = 2
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def two_workers(monkeypatch):
    """One of them plays more than one game, however many cores there are."""
    monkeypatch.setattr(workers_module, "_WORKERS_PER_CORE", 1)
    monkeypatch.setattr(workers_module, "available_cores", lambda: 2)


@pytest.fixture
def workers():
    games = WorkerGames(CONFIG, NUM_ENVS, pytest.fail, NUM_RETRYING)
    yield games
    games.close()


def serial_games():
    return SerialGames(CONFIG, NUM_ENVS, pytest.fail, NUM_RETRYING)


def commands(*values):
    return np.array(values, dtype=np.int32)


def random_play(seed, games, steps=110):
    """Play, and yield what came of each step."""
    rng = np.random.default_rng(seed)
    needs_reset = np.ones(NUM_ENVS, dtype=bool)
    noops_left = np.zeros(NUM_ENVS, dtype=int)
    for _ in range(steps):
        step_commands = rng.choice([3, 4, 4, 4, 4, IDLE], size=NUM_ENVS)
        step_commands[noops_left > 0] = NOOP
        saved = np.array([position.saved > 0 for position in games.positions])
        retries = needs_reset & saved
        step_commands[needs_reset] = RESET
        step_commands[retries] = RETRY
        noop_frames = np.minimum(noops_left, 4)
        new_noops = np.where(retries, 0, rng.integers(10, size=NUM_ENVS))
        noops_left = np.where(needs_reset, new_noops, noops_left - noop_frames)
        games.step_async(step_commands, noop_frames)
        frames, records = games.step_wait()
        yield step_commands, noop_frames, frames, records
        needs_reset = records["terminated"] | records["truncated"]


def copied(positions):
    return [position._replace(actions=list(position.actions)) for position in positions]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_workers_play_as_games_in_this_process_do_and_positions_bring_them_back(workers):
    serial, third = serial_games(), serial_games()
    resets = noops = retries = 0
    for ours, theirs in zip(random_play(0, workers), random_play(0, serial), strict=True):
        assert same(ours, theirs)
        assert workers.positions == serial.positions
        resets += (ours[0] == RESET).sum()
        noops += (ours[0] == NOOP).sum()
        if (ours[0] == RETRY).any():
            retries += 1
            assert np.array_equal(third.restore(copied(workers.positions)), ours[2])
    assert resets > NUM_ENVS and noops > 0 and retries >= 2
    positions = copied(workers.positions)
    assert any(p.noop_frames and p.actions for p in positions)
    assert any(p.start for p in positions)
    workers.step_async(np.full(NUM_ENVS, RESET), np.zeros(NUM_ENVS, dtype=np.int32))
    workers.step_wait()
    assert np.array_equal(workers.restore(positions), ours[2])
    assert workers.positions == positions
    serial.restore(copied(positions))
    retry = np.where([p.saved > 0 for p in positions], RETRY, RESET)
    nothing = np.zeros(NUM_ENVS, dtype=np.int32)
    for games in (workers, serial):
        games.step_async(retry, nothing)
    assert same(workers.step_wait(), serial.step_wait())
    assert [len(p.actions) for p in workers.positions] == [p.saved for p in positions]
    for games in (serial, third):
        games.close()


def test_position_is_what_reset_and_actions_lead_to(workers):
    *_, (_, _, frames, _) = random_play(1, workers)
    game = MarioGame(CONFIG)
    for position, expected in zip(workers.positions, frames, strict=True):
        frame, _ = game.reset(position.noop_frames)
        for action in position.actions:
            frame = game.step(action)[0]
        assert np.array_equal(frame, expected)
    game.close()


@pytest.mark.parametrize("mid_step", [False, True])
def test_a_killed_worker_is_replaced_and_nothing_else_changes(mid_step, monkeypatch):
    reports = []
    disturbed = WorkerGames(CONFIG, NUM_ENVS, reports.append, NUM_RETRYING)
    serial = serial_games()
    step_async, steps = disturbed.step_async, itertools.count()
    victims = {3: 0, 40: -1, 100: 0}

    def step_async_and_kill(*arguments):
        victim = victims.get(next(steps))
        if mid_step:
            step_async(*arguments)
        if victim is not None:
            os.kill(disturbed.pids()[victim], signal.SIGKILL)
        if not mid_step:
            step_async(*arguments)

    monkeypatch.setattr(disturbed, "step_async", step_async_and_kill)
    for ours, theirs in zip(random_play(2, disturbed), random_play(2, serial), strict=True):
        assert same(ours, theirs)
    assert len(reports) == len(victims)
    assert all("died (exit code -9)" in line and "\n" not in line for line in reports)
    processes = [psutil.Process(pid) for pid in disturbed.pids()]
    disturbed.close()
    serial.close()
    assert not any(process.is_running() for process in processes)


def test_a_worker_killed_while_games_are_restored_is_replaced():
    reports = []
    games = WorkerGames(CONFIG, NUM_ENVS, reports.append)
    *_, (_, _, frames, _) = random_play(3, games)
    os.kill(games.pids()[-1], signal.SIGKILL)
    assert np.array_equal(games.restore(games.positions), frames)
    assert len(reports) == 1
    games.close()


def test_a_worker_that_dies_again_and_again_ends_the_run():
    games = WorkerGames(CONFIG, NUM_ENVS, lambda line: os.kill(games.pids()[0], signal.SIGKILL))
    os.kill(games.pids()[0], signal.SIGKILL)
    games.step_async(np.full(NUM_ENVS, RESET), np.zeros(NUM_ENVS, dtype=np.int32))
    with pytest.raises(WorkerDied, match="died"):
        games.step_wait()
    started = time.monotonic()
    games.close()
    assert time.monotonic() - started < 5


def test_an_error_in_a_worker_arrives_with_its_traceback(workers):
    workers.step_async(np.full(NUM_ENVS, RESET), np.zeros(NUM_ENVS, dtype=np.int32))
    workers.step_wait()
    workers.step_async(commands(99, IDLE, IDLE), commands(0, 0, 0))
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*IndexError"):
        workers.step_wait()


def test_workers_end_when_the_trainer_is_killed():
    script = (
        "import sys, time; from mario_rl.games.workers import *\n"
        "from mario_rl.config import EnvConfig\n"
        "if __name__ == '__main__':\n"
        "    games = WorkerGames(EnvConfig(stage='1-1'), 2, print)\n"
        "    print(*games.pids(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in trainer.stdout.readline().split()]
    assert pids
    processes = [psutil.Process(pid) for pid in pids]
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def test_signals_to_the_process_group_do_not_end_the_workers(workers):
    processes = [psutil.Process(pid) for pid in workers.pids()]
    reset = np.full(NUM_ENVS, RESET), np.zeros(NUM_ENVS, dtype=np.int32)
    for _ in range(2):  # while they start, and while they play
        for pid in workers.pids():
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        workers.step_async(*reset)
        workers.step_wait()
    workers.close()
    assert not any(process.is_running() for process in processes)
