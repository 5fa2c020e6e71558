"""The process between a trainer and a Ray cluster, and the pipe to it.

It keeps Ray out of the trainer: what Ray prints, its threads and signal handlers, what it
unpickles, and that it ends a process whose cluster is lost.
"""

import atexit
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from mario_rl.errors import UserError, WorkerDied, first_line
from mario_rl.extras import import_extra
from mario_rl.games.ray_cluster import ClusterGames
from mario_rl.games.workers import leave_deleted_folder, signals_for_the_trainer

LOCAL = "local"  # the address of a cluster of this machine alone
_CONNECT_S = 5
_END_S = 20  # to leave the cluster
_HEAD_LOST_S = 20  # after so long without the head, Ray ends the process
_OBJECT_STORE_BYTES = 200 << 20  # of a cluster of this machine; a step takes less than one


class Bridge:
    """The process between, and the pipe to it."""

    def __init__(self, address: str) -> None:
        """
        Raises:
            UserError: if nothing answers at the address.
        """
        if address != LOCAL:
            _require_listener(address)
        context = multiprocessing.get_context("spawn")
        self._address = address
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, address))
        leave_deleted_folder()
        with theirs, signals_for_the_trainer():
            self._process.start()
        atexit.register(self.close)
        self.num_games = 0

    def begin(self, games: int, method: str, *arguments: Any) -> None:
        """Send a request, as `_serve` takes them."""
        try:
            self._connection.send((games, method, arguments))
        except OSError:
            raise self._lost() from None

    def finish(self, report: Callable[[str], None]) -> list[bytes]:
        """What the request returns.

        Args:
            report: called with each line for the user.

        Raises:
            WorkerDied: if the cluster is lost.
            UserError: if that was raised there.
            RuntimeError: if there was another exception.
        """
        try:
            header = json.loads(self._connection.recv_bytes())
            parts = [self._connection.recv_bytes() for _ in range(header["parts"])]
        except (EOFError, OSError):
            raise self._lost() from None
        for line in header["lines"]:
            report(line)
        if header["failure"] is not None:
            kind, message = header["failure"]
            kinds = {"UserError": UserError, "WorkerDied": WorkerDied}
            raise kinds.get(kind, RuntimeError)(message)
        return parts

    def _lost(self) -> WorkerDied:
        self.close()
        return WorkerDied(f"the Ray cluster at {self._address} is lost")

    @property
    def is_closed(self) -> bool:
        return self._connection.closed

    def close(self) -> None:
        """Leave the cluster; one of this machine alone ends."""
        atexit.unregister(self.close)
        self._connection.close()
        self._process.join(_END_S)
        self._process.kill()


def _require_listener(address: str) -> None:
    """Find out at once, and not after a minute, that there is no cluster.

    Raises:
        UserError: if nothing answers at the address.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--ray {address}: there is no Ray cluster ({first_line(error)}); begin one with: "
            "ray start --head"
        ) from None


def _serve(connection: Connection, address: str) -> None:
    """The process: carry out requests until the pipe is closed.

    A request is (number of the games, method, arguments). The reply is a JSON header, and as many
    messages of bytes as it says.
    """
    # No signal of the terminal is for us, or for what Ray starts.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # Ray keeps logs of its own
        os.dup2(nowhere, stream)
    games: dict[int, ClusterGames] = {}
    lines: list[str] = []  # for the user
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, method, arguments = connection.recv()
            parts, failure = [], None
            try:
                if method == "make":
                    games[number] = ClusterGames(_connected(address), lines.append, *arguments)
                else:
                    parts = getattr(games[number], method)(*arguments)
            except UserError as error:
                failure = type(error).__name__, str(error)
            except Exception:
                failure = "RuntimeError", f"games on a cluster failed:\n{traceback.format_exc()}"
            header = {"lines": lines, "failure": failure, "parts": len(parts)}
            for message in (json.dumps(header).encode(), *parts):
                connection.send_bytes(message)
            lines.clear()
    for one in games.values():
        one.close()
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def _connected(address: str) -> Any:
    """The module `ray`, connected to a cluster.

    Raises:
        UserError: if Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:  # so that Ray listens on 127.0.0.1 alone, on Linux as elsewhere
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(_HEAD_LOST_S))
    ray = import_extra("ray", "games on a cluster (--ray)", "ray")
    import_extra("ray.util.scheduling_strategies", "games on a cluster (--ray)", "ray")
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        options |= {"object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    if not ray.is_initialized():
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of many kinds
            raise UserError(f"--ray {address}: {first_line(error)}") from None
    return ray
