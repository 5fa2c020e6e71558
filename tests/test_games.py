"""Games in worker processes, on the real game."""

import contextlib
import errno
import gc
import itertools
import multiprocessing.util
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import psutil
import pytest

from mario_rl.config import EnvConfig
from mario_rl.errors import UserError, WorkerDied
from mario_rl.games import workers as workers_module
from mario_rl.games.interface import IDLE, NOOP, RESET, RETRY, Position, replay
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
    monkeypatch.setattr(workers_module, "_WORKERS_PER_CORE", {})
    monkeypatch.setattr(workers_module, "available_cores", lambda: 2)


@pytest.fixture(params=["fceumm", "nes-py"])
def emulator(request, monkeypatch):
    """For tests that both emulators must pass."""
    if request.param == "fceumm":
        pytest.importorskip("stable_retro")
    monkeypatch.setattr(sys.modules[__name__], "CONFIG", replace(CONFIG, emulator=request.param))


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


def test_workers_play_as_games_in_this_process_do_and_can_be_brought_back(emulator, workers):
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
            again = third.restore(copied(workers.positions), workers.states())
            assert np.array_equal(again, ours[2])
    assert resets > NUM_ENVS and noops > 0 and retries >= 2
    positions, states = copied(workers.positions), workers.states()
    assert (states is None) == (CONFIG.emulator == "nes-py")
    assert any(p.noop_frames and p.actions for p in positions)
    assert any(p.start for p in positions)
    workers.step_async(np.full(NUM_ENVS, RESET), np.zeros(NUM_ENVS, dtype=np.int32))
    workers.step_wait()
    assert np.array_equal(workers.restore(positions, states), ours[2])
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
def test_a_killed_worker_is_replaced_and_nothing_else_changes(emulator, mid_step, monkeypatch):
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


def test_a_worker_killed_while_games_are_restored_is_replaced(emulator):
    reports = []
    games = WorkerGames(CONFIG, NUM_ENVS, reports.append)
    *_, (_, _, frames, _) = random_play(3, games)
    os.kill(games.pids()[-1], signal.SIGKILL)
    assert np.array_equal(games.restore(games.positions, games.states()), frames)
    assert len(reports) == 1
    games.close()


def test_states_go_on_alike_in_another_process_and_other_bytes_are_refused():
    pytest.importorskip("stable_retro")
    games, other = serial_games(), serial_games()
    *_, (_, _, frames, records) = random_play(4, games)
    states = games.states()
    assert np.array_equal(other.restore(copied(games.positions), states), frames)
    actions = np.where(records["terminated"] | records["truncated"], RETRY, 4)
    for _ in range(20):
        for one in (games, other):
            one.step_async(actions, np.zeros(NUM_ENVS, dtype=int))
        (theirs, records), ours = games.step_wait(), other.step_wait()
        assert same((theirs, records), ours)
        actions = np.where(records["terminated"] | records["truncated"], RETRY, 3)
    assert games.states() == other.states()
    good, workers = states[0], WorkerGames(CONFIG, NUM_ENVS, pytest.fail, NUM_RETRYING)
    of_another_core = good.replace(b"FCS", b"fcs")
    greatest = b"\xff\xff\xff\x7f" + good[4:]
    of_another_stage = MarioGame(replace(CONFIG, stage="1-2")).state()
    for wrong in (
        b"", good[:-1], good + b"x", b"\xff" * len(good), of_another_core, greatest,
        of_another_stage,
    ):  # fmt: skip
        with pytest.raises(UserError, match="the checkpoint cannot be restored"):
            other.restore(games.positions, [wrong] * NUM_ENVS)
    # Of different lengths
    with pytest.raises(UserError, match="the checkpoint cannot be restored"):
        workers.restore(games.positions, [good[:-1], *states[1:]])
    for one in (games, other, workers):
        one.close()


def reset_all(games):
    games.step_async(np.full(NUM_ENVS, RESET), np.zeros(NUM_ENVS, dtype=np.int32))
    return games.step_wait()


def test_replacements_killed_at_once_are_replaced_and_nothing_else_changes():
    reports = []

    def report(line):  # a new worker has just begun
        reports.append(line)
        if len(reports) in (1, 2, 5):
            os.kill(games.pids()[0], signal.SIGKILL)

    games, serial = WorkerGames(CONFIG, NUM_ENVS, report, NUM_RETRYING), serial_games()
    for i, (ours, theirs) in enumerate(
        zip(random_play(5, games, 12), random_play(5, serial, 12), strict=True)
    ):
        assert same(ours, theirs)
        if i in (4, 8):  # all of them, between two steps
            for pid in games.pids():
                os.kill(pid, signal.SIGKILL)
    assert len(reports) == 4 + 3
    games.close()
    serial.close()


def test_workers_that_die_again_and_again_end_the_run(monkeypatch):
    monkeypatch.setattr(workers_module, "_MAX_REPLACEMENTS", 2)
    reports = []

    def report(line):
        reports.append(line)
        os.kill(games.pids()[0], signal.SIGKILL)

    games = WorkerGames(CONFIG, NUM_ENVS, report)
    os.kill(games.pids()[0], signal.SIGKILL)
    with pytest.raises(WorkerDied, match=r"exit code -9\), the last of 3 .* memory") as caught:
        reset_all(games)
    assert len(reports) == 2 and "\n" not in str(caught.value)
    started = time.monotonic()
    games.close()
    assert time.monotonic() - started < 5


def open_pipes():
    """Descriptors of pipes and sockets."""
    modes = {}
    for descriptor in range(1024):
        with contextlib.suppress(OSError):
            modes[descriptor] = os.fstat(descriptor).st_mode
    return {fd for fd, mode in modes.items() if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)}


REFUSAL = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def failing_starts(monkeypatch, *failures, error=REFUSAL):
    """Let the system refuse some of the processes that are started from now on."""
    spawn, starts = multiprocessing.util.spawnv_passfds, itertools.count()

    def limited(*arguments):
        if next(starts) in failures:
            raise error
        return spawn(*arguments)

    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", limited)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (REFUSAL, UserError, r"^only 1 of 2 .*temporarily unavailable.*--num-envs.*serial$"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_start_that_fails_leaves_no_process_behind(monkeypatch, error, kind, says):
    resource_tracker.ensure_running()
    before = set(psutil.Process().children())
    gc.collect()  # what earlier tests left open
    pipes = open_pipes()
    failing_starts(monkeypatch, 1, error=error)
    with pytest.raises(kind, match=says):
        WorkerGames(CONFIG, NUM_ENVS, pytest.fail)
    assert set(psutil.Process().children()) == before
    error.__traceback__ = None  # whose frames hold what is open
    gc.collect()
    assert open_pipes() == pipes


def test_positions_beyond_the_end_of_a_game_are_refused(workers):
    """The first enemy of 1-1 ends the life of who only walks to the right."""
    game = MarioGame(CONFIG)
    game.reset()
    length = 1
    while not game.step(1)[2]:
        length += 1
    replay(game, Position(0, [1] * length))  # as far as the end
    ends = rf"a game ends after {length} of its {{}} actions; resume with the versions"
    for position in (
        Position(0, [1] * (length + 1)),
        Position(0, [1] * 3000, saved=length + 5, start=length + 5),
        Position(0, [1] * length, saved=length, start=length),
    ):
        with pytest.raises(UserError, match=ends.format(len(position.actions))):
            replay(game, position)
    beyond = [Position(0, []), Position(0, [1] * 3000), Position(0, [])]
    for games in (workers, SerialGames.of([MarioGame(CONFIG) for _ in beyond])):
        with pytest.raises(UserError, match=ends.format(3000)):
            games.restore(beyond)


@pytest.mark.parametrize("command", [1, NOOP])
def test_a_game_does_not_go_on_after_its_end(command, workers):
    """A checkpoint may say that a game goes on which the last of its actions ended."""
    game = MarioGame(CONFIG)
    game.reset()
    actions = [1]
    while not game.step(1)[2]:
        actions.append(1)
    ended = [Position(0, list(actions)) for _ in range(NUM_ENVS)]
    for games in (workers, serial_games()):
        games.restore(ended)
        with pytest.raises(UserError, match="a game cannot go on after its end"):
            games.step_async(np.full(NUM_ENVS, command), np.full(NUM_ENVS, 4))
            games.step_wait()


def test_a_worker_that_has_begun_when_ctrl_c_comes_ends(monkeypatch):
    @contextlib.contextmanager
    def interrupted():
        yield
        raise KeyboardInterrupt

    resource_tracker.ensure_running()
    before = set(psutil.Process().children())
    monkeypatch.setattr(workers_module, "signals_for_the_trainer", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        WorkerGames(CONFIG, NUM_ENVS, pytest.fail)
    children = set(psutil.Process().children()) - before
    _, alive = psutil.wait_procs(children, timeout=20)
    assert children and not alive and caught.tb


def test_a_replacement_that_cannot_be_started_is_tried_again(monkeypatch):
    reports = []
    games = WorkerGames(CONFIG, NUM_ENVS, reports.append)
    frames, _ = reset_all(games)
    failing_starts(monkeypatch, 0, 1)
    os.kill(games.pids()[1], signal.SIGKILL)
    assert np.array_equal(games.restore(games.positions), frames)
    assert len(reports) == 1
    monkeypatch.setattr(workers_module, "_MAX_REPLACEMENTS", 1)
    failing_starts(monkeypatch, 0)
    os.kill(games.pids()[1], signal.SIGKILL)
    with pytest.raises(WorkerDied, match="could be started: Resource temporarily unavailable"):
        reset_all(games)
    games.close()


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError(errno.EMFILE, "Too many open files", "rom.nes"), WorkerDied, "open files: 'rom"),
        (MemoryError(), WorkerDied, "out of memory"),
        (UserError("such a view does not fit"), UserError, "such a view does not fit"),
        (ZeroDivisionError(), RuntimeError, "(?s)Traceback.*ZeroDivisionError"),
    ],
)
def test_what_is_raised_in_a_worker_arrives(monkeypatch, error, kind, says):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(workers_module, "MarioGame", fail)
    monkeypatch.setattr(os, "nice", fail)  # forbidden, for an OSError
    if not isinstance(error, OSError):
        monkeypatch.setattr(os, "nice", lambda _: None)
    context = multiprocessing.get_context("spawn")
    worker = object.__new__(workers_module._Worker)
    worker._connection, theirs = context.Pipe()
    shared = workers_module._Shared(context, 1, CONFIG.frame_shape)
    workers_module._work(theirs, shared, slice(0, 1), CONFIG, 0)
    with pytest.raises(kind, match=says) as caught:
        worker.finish()
    assert type(caught.value) is kind
    assert kind is RuntimeError or "\n" not in str(caught.value)


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


GROUP = """
import signal, sys
from mario_rl.config import EnvConfig
from mario_rl.games import workers

def main():
    received = set()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: received.add(number))
    workers.available_cores = lambda: 1
    print("begins", flush=True)
    games = workers.WorkerGames(EnvConfig(stage="1-1", emulator="nes-py"), 3, print)
    print(*games.pids(), flush=True)
    input()  # signals all the while
    games.restore(games.positions)
    print(*games.pids(), flush=True)
    print(len(received), *signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)
    games.close()
    input()  # until there are no more

if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_signals_to_the_process_group_do_not_end_the_workers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    pipe = subprocess.PIPE
    trainer = subprocess.Popen(
        [sys.executable, "-c", GROUP], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True,
        start_new_session=True,
    )  # fmt: skip
    stop = threading.Event()

    def send():
        while not stop.wait(0.005):
            for number in numbers:
                os.killpg(trainer.pid, number)

    assert trainer.stdout.readline() == "begins\n"
    sender = threading.Thread(target=send)
    sender.start()
    try:
        pids = trainer.stdout.readline()
        assert len(pids.split()) == 3
        for process in psutil.Process(trainer.pid).children():
            status = Path(f"/proc/{process.pid}/status").read_text()
            blocked = int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16)
            is_worker = str(process.pid) in pids.split()
            for number in numbers if is_worker else [signal.SIGHUP]:  # the resource tracker
                assert blocked >> (number - 1) & 1, (number, is_worker)
        trainer.stdin.write("\n")
        trainer.stdin.flush()
        assert trainer.stdout.readline() == pids
        assert trainer.stdout.readline() == "3\n"  # it got them all, and blocks none
        stop.set()
        sender.join()
        _, errors = trainer.communicate("\n", timeout=60)
    finally:
        stop.set()
        sender.join()
        trainer.kill()
        trainer.communicate()
    assert trainer.returncode == 0 and errors == ""


def test_workers_start_where_the_current_directory_was_deleted(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "from mario_rl.config import EnvConfig\n"
        "from mario_rl.games.workers import WorkerGames\n"
        "if __name__ == '__main__':\n"
        "    os.rmdir(os.getcwd())\n"
        "    games = WorkerGames(EnvConfig(stage='1-1'), 1, print)\n"
        "    print(len(games.pids()))\n"
        "    games.close()\n"
    )
    gone = tmp_path / "gone"
    gone.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, str(script)], cwd=gone, env=environment, capture_output=True, text=True
    )
    assert result.stdout == "1\n", result.stderr
