"""Games on a cluster: nodes that are processes of this machine."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from scripts import ROOT, call

from mario_rl.config import Config, EnvConfig
from mario_rl.errors import UserError, WorkerDied
from mario_rl.games.interface import RETRY
from mario_rl.games.ray_games import RayGames
from mario_rl.games.serial import SerialGames

pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytest.importorskip("stable_retro")

NUM_ENVS, NUM_RETRYING = 7, 4
CONFIG = EnvConfig("1-1", "fceumm", stall_steps=20)
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
SMALL = (
    "--stage 1-1 --num-envs 4 --batch-size 16 --learning-starts 60 --replay-capacity 600 "
    "--stall-steps 20 --eval-episodes 2 --checkpoint-interval 10 --replay-ratio 2 --threads 1 "
    "--no-record-best --seed 6"
).split()


@pytest.fixture
def cluster(monkeypatch):
    """A head with one CPU, and two more nodes."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=NODE)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=100 << 20)
    yield made
    made.shutdown()


def play(games, steps, disturb=lambda step: None):
    """Random actions; games that ended go on at a save point or start again."""
    rng = np.random.default_rng(5)
    ended, saved = np.ones(NUM_ENVS, dtype=bool), np.zeros(NUM_ENVS, dtype=bool)
    for step in range(steps):
        commands = np.where(saved & ended, RETRY, np.where(ended, -1, rng.integers(7, size=7)))
        disturb(step)
        games.step_async(commands, np.zeros(NUM_ENVS, dtype=np.int64))
        frames, records = games.step_wait()
        ended = records["terminated"] | records["truncated"]
        saved = (saved | records["saved"]) & (commands != -1)
        yield frames, records


def actors():
    """The processes in which games are played."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] and "ray::NodeGames" in process.info["cmdline"][0]
    ]


def kill_head(cluster):
    for processes in list(cluster.head_node.all_processes.values()):
        for one in processes:
            os.kill(one.process.pid, signal.SIGKILL)


def test_lost_and_joining_nodes_change_nothing(cluster):
    reports = []
    games = RayGames(CONFIG, NUM_ENVS, reports.append, NUM_RETRYING, cluster.address)
    serial = SerialGames(CONFIG, NUM_ENVS, pytest.fail, NUM_RETRYING)

    def disturb(step):
        if step == 60:
            cluster.worker_nodes.copy().pop().kill_raylet()
        elif step == 200:
            actors()[0].kill()
        elif step == 330:
            cluster.add_node(num_cpus=1, object_store_memory=100 << 20)

    compared = 0
    for ours, theirs in zip(play(games, 420, disturb), play(serial, 420), strict=True):
        assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
        compared += 1
    assert compared == 420 and games.positions == serial.positions
    text = "\n".join(reports)
    assert len(re.findall("is lost .*; its games go on where they were", text)) >= 2
    assert re.search(r"\d nodes have joined; games are played on 3", text), text
    states = games.states()
    assert states == serial.states()
    # Back to there, from states and without.
    frames = serial.restore(games.positions, states)
    assert np.array_equal(games.restore(games.positions, states), frames)
    assert np.array_equal(games.restore(games.positions), frames)
    games.close()
    _, alive = psutil.wait_procs(actors(), timeout=20)
    assert not alive


def test_a_node_without_games_is_no_new_node(cluster):
    """One game on three nodes."""
    reports = []
    games = RayGames(CONFIG, 1, reports.append, 0, cluster.address)
    processes = {process.pid for process in actors()}
    for _ in range(300):
        games.step_async(np.array([-1]), np.array([0]))
        games.step_wait()
    assert not reports and {process.pid for process in actors()} == processes
    games.close()


def test_a_lost_cluster_ends_the_games(cluster):
    games = RayGames(CONFIG, NUM_ENVS, lambda line: None, NUM_RETRYING, cluster.address)
    kill_head(cluster)
    with pytest.raises(WorkerDied, match=r"is lost$"):
        for _ in play(games, 1000):
            pass
    games.close()


def trainer(folder, *words):
    command = [sys.executable, str(ROOT / "progressive_mario_trainer.py"), *SMALL, *words]
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def trained(folder, name):
    """All that was learned: the last checkpoint's content that is not about time."""
    from mario_rl.storage.checkpoint import CheckpointStore
    from mario_rl.training.state import RunState

    loaded = CheckpointStore(folder / "checkpoints" / name).load(
        RunState.from_file, RunState.check_frames
    )
    net = loaded.state.learner.online_net
    frames = [block.tobytes() for _, block in loaded.frames]
    return {key: value.tolist() for key, value in net.items()}, frames


def test_a_run_on_three_nodes_of_which_one_dies_is_the_run_without_ray(cluster, tmp_path):
    code, _, errors = call(
        "progressive_mario_trainer.py",
        [*SMALL, "--run-name", "alone", "--games", "serial", "--max-steps", "2400"],
        tmp_path,
    )
    assert code == 0, errors
    words = ["--run-name", "nodes", "--max-steps", "2400", "--ray", cluster.address]
    process = trainer(tmp_path, *words)
    while process.poll() is None and not (tmp_path / "stats/nodes/episodes.csv").exists():
        time.sleep(0.05)
    time.sleep(2)
    cluster.worker_nodes.copy().pop().kill_raylet()
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "finished: " in output
    assert trained(tmp_path, "nodes") == trained(tmp_path, "alone")


def test_a_run_whose_cluster_is_lost_says_how_to_go_on_and_does(cluster, tmp_path):
    process = trainer(
        tmp_path, "--run-name", "r", "--max-steps", "100000", "--ray", cluster.address
    )
    stats = tmp_path / "stats/r/episodes.csv"
    while process.poll() is None and not (stats.exists() and len(stats.read_text()) > 3000):
        time.sleep(0.1)
    kill_head(cluster)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2
    (line,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert "the Ray cluster at" in line and "--resume" in line, errors
    words = ["--run-name", "r", "--resume", "--max-steps", "1600", "--games", "serial"]
    code, output, errors = call("progressive_mario_trainer.py", [*words, "--ray", "none"], tmp_path)
    assert code == 0 and "resumed at" in output, errors


def test_ctrl_c_leaves_no_process_of_a_local_cluster(tmp_path):
    process = trainer(tmp_path, "--run-name", "r", "--max-steps", "100000", "--ray", "local")
    stats = tmp_path / "stats/r/episodes.csv"
    while process.poll() is None and not (stats.exists() and len(stats.read_text()) > 1000):
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    names = {name for child in children for name in child.cmdline()[:1]}
    assert any("raylet" in name for name in names)
    addresses = {
        connection.laddr.ip
        for child in children
        for connection in child.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0 and "--resume" in output + errors
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, addresses


@pytest.mark.parametrize("address", ["nowhere", "ray://a:1", "a b:1", "", "a:123456"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match="must be HOST:PORT, local or none"):
        Config().replaced({"ray": address})


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_without_a_cluster_there_is_one_line(host):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{host}:{free.getsockname()[1]}"
        with pytest.raises(UserError, match="there is no Ray cluster"):
            RayGames(CONFIG, 2, pytest.fail, 0, address)


def test_without_ray_the_way_to_install_it_is_told(tmp_path, monkeypatch):
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('no ray', name='ray')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="need ray: pip install ray"):
        RayGames(CONFIG, 2, pytest.fail, 0, "local")


def test_what_a_node_returns_is_checked():
    from mario_rl.games.ray_cluster import _fill
    from mario_rl.games.ray_node import packed_states, unpacked_states

    rest = _fill(np.zeros((2, 3), np.uint8), memoryview(b"123456rest"))
    assert bytes(rest) == b"rest"
    with pytest.raises(UserError, match="5 bytes instead of 6"):
        _fill(np.zeros((2, 3), np.uint8), memoryview(b"12345"))
    states = [b"abc", b"def"]
    assert unpacked_states(packed_states(states), 2) == states
    assert unpacked_states(packed_states(None), 2) is None
    with pytest.raises(ValueError, match="not the states of 4 games"):
        unpacked_states(packed_states(states), 4)
