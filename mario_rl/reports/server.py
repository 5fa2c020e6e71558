"""A report that follows a run, for a browser on this machine.

The server listens on 127.0.0.1 only, answers GET alone, and only below a path that nobody can
guess. It refuses other names of this machine, so that no website can reach it by one of its own.
"""

import json
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

from mario_rl.errors import UserError
from mario_rl.reports.html import Report, run_report
from mario_rl.reports.recorded_runs import read_run
from mario_rl.storage.files import file_version
from mario_rl.storage.paths import RunPaths

_HOST = "127.0.0.1"


def serve(paths: RunPaths, say: Callable[[str], None]) -> None:
    """Serve the report of a run until Ctrl-C.

    Args:
        say: called with the address.

    Raises:
        UserError: if there is no such run, one of its files is damaged, or Plotly is missing.
    """
    with server_of(paths) as server:
        say(f"{server.address()} shows the run; Ctrl-C ends it")
        server.serve_forever()


def server_of(paths: RunPaths) -> "ReportServer":
    """A server that is bound to a free port.

    Raises:
        UserError: as `serve`.
    """
    source = _Source(paths)
    source.page()  # what is wrong is told before the address is
    return ReportServer(source)


class _Source:
    """The report of a run, made again when a file of the run has changed."""

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._lock = Lock()
        self._versions: list[Any] = []
        self._report: Report

    def report(self) -> Report:
        paths = self._paths
        files = paths.episodes_csv, paths.updates_csv, paths.evaluations_csv, paths.model
        with self._lock:
            versions = [file_version(file) for file in files]
            if versions != self._versions:
                self._report = run_report(paths, read_run(paths.run_name, paths.output_dir))
                self._versions = versions
            return self._report

    def page(self) -> bytes:
        return self.report().page(is_live=True)

    def news(self) -> bytes:
        """What `report.html` asks for."""
        report = self.report()
        return json.dumps({"charts": report.charts, **report.parts()}).encode()


class ReportServer(ThreadingHTTPServer):
    """Serves one source below a random path."""

    daemon_threads = True

    def __init__(self, source: _Source) -> None:
        super().__init__((_HOST, 0), _Handler)
        self.source = source
        self.token = secrets.token_urlsafe(16)

    def address(self) -> str:
        return f"http://{_HOST}:{self.server_address[1]}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        answers = {
            f"/{self.server.token}/": (self.server.source.page, "text/html; charset=utf-8"),
            f"/{self.server.token}/news": (self.server.source.news, "application/json"),
        }
        is_ours = self.headers.get("Host") in (f"{_HOST}:{port}", f"localhost:{port}")
        if not is_ours or self.path not in answers:
            self.send_error(404)
            return
        make, kind = answers[self.path]
        try:
            body = make()
        except UserError as error:  # a file is being replaced, or was deleted
            self.send_error(503, explain=str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are nothing that the user asked to see."""
