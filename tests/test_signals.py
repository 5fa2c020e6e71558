"""Signals to a run: which stop it, and that suspended time does not count."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from torture.victims import TRAIN, Run

from mario_rl.training.signals import Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_request_to_stop(number):
    signals = Signals()
    before = signal.getsignal(number)
    with signals.handled():
        assert not signals.stop_requested()
        os.kill(os.getpid(), number)
        assert signals.stop_requested()
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_interrupts():
    with Signals().handled(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch):
    """As SIGHUP under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = Signals()
        with signals.handled():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.stop_requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_suspended_time_is_told_once():
    child = subprocess.Popen(
        [sys.executable, "-c",
         "import sys, time\n"
         "from mario_rl.training.signals import Signals\n"
         "signals = Signals()\n"
         "with signals.handled():\n"
         "    time.sleep(1)\n"
         "    signals.stop_requested()\n"
         "    print(signals.take_suspended_s(), flush=True)\n"
         "    sys.stdin.readline()\n"
         "    print(signals.take_suspended_s(), signals.take_suspended_s(), flush=True)\n"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TRAIN.parent,
    )  # fmt: skip
    assert child.stdout.readline() == "0.0\n"
    child.send_signal(signal.SIGSTOP)
    while psutil.Process(child.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    time.sleep(1)
    child.send_signal(signal.SIGCONT)
    output, _ = child.communicate("\n")
    first, second = map(float, output.split())
    assert 1 <= first < 4 and second == 0


def test_a_run_is_saved_at_a_hangup_and_suspended_time_does_not_count(tmp_path):
    run = Run(tmp_path, "run", 1000, 0)
    process = run.start()
    while "  steps/s " not in run.log():
        assert process.poll() is None, run.log()
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGSTOP)
    time.sleep(6)
    process.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    passed = time.monotonic() - began
    assert "stopped and saved" in run.log()
    hours = run.checkpoint().state.progress.trainer.hours
    assert 0 < hours * 3600 < passed - 4
