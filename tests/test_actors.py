"""Games in worker processes, on the real game."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from mario_rl.actors import IDLE, RESET, Position, SerialEnvs, WorkerDied, WorkerEnvs
from mario_rl.config import EnvConfig
from mario_rl.env import MarioEnv

CONFIG = EnvConfig(stage="1-1", stall_steps=8)
NUM_ENVS = 3
ROOT = Path(__file__).parent.parent


@pytest.fixture
def workers():
    envs = WorkerEnvs(CONFIG, NUM_ENVS)
    yield envs
    envs.close()


def commands(*values):
    return np.array(values, dtype=np.int32)


def test_workers_play_as_games_in_this_process_do_and_positions_bring_them_back(workers):
    serial = SerialEnvs([MarioEnv(CONFIG) for _ in range(NUM_ENVS)])
    rng = np.random.default_rng(0)
    needs_reset = np.ones(NUM_ENVS, dtype=bool)
    positions = [Position(0, []) for _ in range(NUM_ENVS)]
    resets = 0
    for _ in range(45):
        actions = rng.choice([1, 2, 6, 6], size=NUM_ENVS)
        actions[0] = IDLE if rng.random() < 0.3 and not needs_reset[0] else actions[0]
        step_commands = np.where(needs_reset, RESET, actions)
        noop_frames = rng.integers(10, size=NUM_ENVS)
        for i, command in enumerate(step_commands):
            if command == RESET:
                positions[i] = Position(int(noop_frames[i]), [])
                resets += 1
            elif command != IDLE:
                positions[i].actions.append(int(command))
        outputs = []
        for envs in (serial, workers):
            envs.step_async(step_commands, noop_frames)
            outputs.append(envs.step_wait())
        assert np.array_equal(outputs[0][0], outputs[1][0])
        assert np.array_equal(outputs[0][1], outputs[1][1])
        needs_reset = outputs[0][1]["terminated"] | outputs[0][1]["truncated"]
    assert resets > NUM_ENVS
    frames = outputs[0][0]
    workers.step_async(np.full(NUM_ENVS, RESET), np.zeros(NUM_ENVS, dtype=np.int32))
    workers.step_wait()
    assert np.array_equal(workers.restore(positions), frames)
    serial.close()


def test_a_killed_worker_is_reported_and_close_returns(workers):
    os.kill(workers.pids()[0], signal.SIGKILL)
    with pytest.raises(WorkerDied, match="died"):
        for _ in range(3):
            workers.step_async(np.full(NUM_ENVS, RESET), np.zeros(NUM_ENVS, dtype=np.int32))
            workers.step_wait()
    started = time.monotonic()
    workers.close()
    assert time.monotonic() - started < 5


def test_an_error_in_a_worker_arrives_with_its_traceback(workers):
    workers.step_async(np.full(NUM_ENVS, RESET), np.zeros(NUM_ENVS, dtype=np.int32))
    workers.step_wait()
    workers.step_async(commands(99, IDLE, IDLE), commands(0, 0, 0))
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*IndexError"):
        workers.step_wait()


def test_workers_end_when_the_trainer_is_killed():
    script = (
        "import sys, time; from mario_rl.actors import *; from mario_rl.config import EnvConfig\n"
        "if __name__ == '__main__':\n"
        "    envs = WorkerEnvs(EnvConfig(stage='1-1'), 2)\n"
        "    print(*envs.pids(), flush=True)\n"
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
