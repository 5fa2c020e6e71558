"""Runs that are stopped at random instants, in every way, and resumed until they are finished."""

import contextlib
import ctypes
import random
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator

import psutil

from torture.victims import TRAIN, Run

STARTUP_S = 4.0  # about how long a process takes until it has resumed; stops aim at it, too

# Disturbs a run once, and returns what is to be counted.
Stop = Callable[[Run, random.Random], list[str]]


def kill(run: Run, rng: random.Random) -> list[str]:
    """SIGKILL: while the run is resumed, while it is trained, or as soon as it writes a file."""
    resumed_before = run.log().count("resumed at")
    process = run.start()
    aim = rng.choice(["start", "any", "write", "write"])
    if aim == "start":
        _wait(process, rng.uniform(0, STARTUP_S))
    else:
        _wait_until_trained(run, process)
        _wait(process, rng.uniform(0, STARTUP_S))
    if aim == "write":
        _wait_for_write(run, process)
        time.sleep(rng.choice([0, 0, 0.002, 0.02, 0.1]))
    if process.poll() is not None:
        return []
    _kill(process)
    labels = ["SIGKILL"]
    if run.half_written(process.pid):
        labels.append("SIGKILL while a file was written")
    if run.log().count("resumed at") == resumed_before:
        labels.append("SIGKILL before the run was resumed")
    return labels


def terminate(run: Run, rng: random.Random) -> list[str]:
    return _signal(run, rng, signal.SIGTERM)


def interrupt(run: Run, rng: random.Random) -> list[str]:
    return _signal(run, rng, signal.SIGINT)


def _signal(run: Run, rng: random.Random, number: signal.Signals) -> list[str]:
    process = run.start()
    # Not while Python itself starts. Before its handlers are in place, a signal ends a process.
    _wait(process, rng.uniform(0.25, 2) * STARTUP_S)
    if process.poll() is not None:
        return []
    process.send_signal(number)
    _check(run, process, (0, 130, -number))
    return [number.name]


def kill_worker(run: Run, rng: random.Random) -> list[str]:
    """SIGKILL to a worker; the trainer must not stop, and is terminated later."""
    process = run.start()
    _wait_until_trained(run, process)
    _wait(process, rng.uniform(0, STARTUP_S / 2))
    workers = [child for child in _children(process) if "multiprocessing.spawn" in _command(child)]
    if not workers:
        return []
    rng.choice(workers).kill()
    _wait(process, STARTUP_S / 2)
    process.send_signal(signal.SIGTERM)  # which may find it past its last line, and end it
    _check(run, process, (0, -signal.SIGTERM))
    return ["killed worker"]


def fill_disk(run: Run, rng: random.Random) -> list[str]:
    """No file may grow beyond a random size, as if the disk were full."""
    size = int(10 ** rng.uniform(3, 8))
    process = run.start(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    _wait(process, rng.uniform(1, 3) * STARTUP_S)
    process.send_signal(signal.SIGTERM)
    _check(run, process, (0, 2, -signal.SIGTERM))
    return ["full disk"] if process.returncode == 2 else []


def make_read_only(run: Run, rng: random.Random) -> list[str]:
    """One of the run's folders becomes read-only while it is trained."""
    folder = rng.choice([run.paths.checkpoints, run.paths.stats])
    process = run.start(_obey_permissions)
    _wait(process, rng.uniform(0.1, 2) * STARTUP_S)
    if not folder.is_dir():
        _kill(process)
        return []
    folder.chmod(0o555)
    try:
        _wait(process, 2 * STARTUP_S)
        process.send_signal(signal.SIGTERM)
        _check(run, process, (0, 2, -signal.SIGTERM))
    finally:
        folder.chmod(0o755)
    return ["read-only folder"] if process.returncode == 2 else []


def let_the_clock_jump(run: Run, rng: random.Random) -> list[str]:
    """Every time that a program asks, it is another year."""
    script = (
        "import random, runpy, sys, time; real = time.time\n"
        "time.time = lambda: real() + random.uniform(-1e8, 1e8)\n"
        f"sys.argv[0] = {str(TRAIN)!r}\n"
        f"sys.path.insert(0, {str(TRAIN.parent)!r})\n"
        f"if __name__ == '__main__': runpy.run_path({str(TRAIN)!r}, run_name='__main__')\n"
    )
    process = run.start(command=("-c", script))
    _wait_until_trained(run, process)
    _wait(process, rng.uniform(0, STARTUP_S))
    if process.poll() is not None:
        return []
    _kill(process)
    return ["jumping clock"]


STOPS: tuple[Stop, ...] = (
    terminate, interrupt, kill_worker, fill_disk, make_read_only, let_the_clock_jump,
)  # fmt: skip


def torment(run: Run, stops: Iterator[Stop], rng: random.Random) -> Counter[str]:
    """Stop a run again and again until it is finished or `stops` ends, then let it finish."""
    counts: Counter[str] = Counter()
    for stop in stops:
        if run.is_finished():
            break
        counts.update(stop(run, rng))
    if not run.is_finished():
        run.finish()
    return counts


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _wait_until_trained(run: Run, process: "subprocess.Popen[bytes]") -> None:
    """Until it prints how far it is."""
    before = run.log().count("  steps/s ")
    while process.poll() is None and run.log().count("  steps/s ") == before:
        time.sleep(0.02)


def _wait_for_write(run: Run, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None and not run.half_written(process.pid):
        time.sleep(0.0005)


def _check(run: Run, process: "subprocess.Popen[bytes]", codes: tuple[int, ...]) -> None:
    code = process.wait(120)
    log = run.log()
    assert code in codes and "Traceback" not in log, f"exit code {code}:\n{log[-3000:]}"


def _children(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children()
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _obey_permissions() -> None:
    """Take from root, if this is root, the power to write where nobody may."""
    drop, dac_override = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE; see prctl(2), capabilities(7)
    ctypes.CDLL(None).prctl(drop, dac_override, 0, 0, 0)
