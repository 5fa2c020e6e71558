import os
import shutil
import signal
import subprocess

import pytest

# The tests run side by side, one on each core: more threads would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

# The tier of whole modules and of single tests. The others are quick.
TIERS = {
    "emulator": {
        "test_games",
        "test_guide",
        "test_api",
        "test_emulators",
        "test_env",
        "test_identity",
        "test_install::test_installed_commands_play_and_train",
        "test_install::test_without_stable_retro_the_package_plays",
    },
    "slow": {
        "test_console::test_a_run_that_nobody_sees_is_trained_and_saved",
        "test_environments",
        "test_extensions",
        "test_extras::test_nothing_is_imported_that_was_not_asked_for",
        "test_flags",
        "test_gpu_check",
        "test_human",
        "test_pretrained",
        "test_ray",
        "test_schemas",
        "test_scripts",
        "test_session",
        "test_sweep",
        "test_signals::test_a_run_is_saved_at_a_hangup_and_suspended_time_does_not_count",
        "test_torture",
        "test_trainer::test_solves_a_small_task",
        "test_trainer::test_timing_changes_nothing",
    },
}


# In the background of a script Ctrl-C is ignored, under nohup SIGHUP, and so would be the tests'.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        module = item.path.stem
        names = {module, f"{module}::{item.originalname}"}
        item.add_marker(next((tier for tier, tests in TIERS.items() if names & tests), "quick"))
    # The slow modules first, so that at the end no core waits for another.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def display(monkeypatch):
    """A screen that nobody sees."""
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb")
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        monkeypatch.setenv("DISPLAY", f":{server.stdout.readline().strip()}")  # once it is ready
        yield
    finally:
        server.terminate()
        server.communicate()
