"""Models on the Hub, which a server on this machine stands in for."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from scripts import ROOT

from mario_rl.agent.exported_model import read_exported, write_exported
from mario_rl.agent.saved_model import SavedModel
from mario_rl.agent.shipped import model_file

pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of https://huggingface.co/docs/hub/api as a push and a pull ask for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, content, code=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        files = self.server.files
        if self.headers.get("Authorization") != "Bearer hf_test":
            self._answer({"error": "who are you?"}, 401)
        elif self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            self._answer({"url": f"{self.server.url}/someone/mario"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self._answer({"files": modes})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    content = base64.b64decode(item["value"]["content"])
                    files[item["value"]["path"]] = content
            url = f"{self.server.url}/someone/mario/commit/{COMMIT}"
            self._answer({"commitUrl": url, "commitOid": COMMIT})
        else:
            self._answer({"error": self.path}, 404)

    def do_GET(self):
        files = self.server.files
        path = self.path.partition("?")[0]
        if "/revision/" in path:
            siblings = [{"rfilename": name, "size": len(files[name])} for name in files]
            self._answer(
                {"id": "someone/mario", "modelId": "someone/mario", "sha": COMMIT,
                 "private": False, "tags": [], "downloads": 0, "siblings": siblings}
            )  # fmt: skip
        elif "/tree/" in path:
            self._answer(
                [{"type": "file", "path": name, "size": len(files[name]),
                  "oid": hashlib.sha1(files[name]).hexdigest()} for name in files]
            )  # fmt: skip
        elif "/resolve/" in path and path.rpartition("/")[2] in files:
            content = files[path.rpartition("/")[2]]
            etag = hashlib.sha1(content).hexdigest()
            self._answer(content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
        else:
            self._answer({"error": path}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.made = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "1-1"
    write_exported(SavedModel.load(model_file("1-1")), folder)
    (folder / "README.md").write_text("# the card\n")
    (folder / "notes.txt").write_text("not for others")
    return folder


def run(url, folder, *words):
    environment = {
        **os.environ, "HF_ENDPOINT": url, "HF_HOME": str(folder / "cache"), "HF_TOKEN": "hf_test",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "mario_rl.hub", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_a_model_goes_there_and_comes_back(hub, exported, tmp_path):
    result = run(hub.url, tmp_path, "push", exported, "someone/mario")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{hub.url}/someone/mario\n"
    assert hub.files.keys() == {"README.md", "config.json", "model.safetensors"}
    assert hub.made[0]["name"] == "mario"

    hub.files["evil.pkl"] = b"code"
    pulled = tmp_path / "theirs"
    result = run(hub.url, tmp_path, "pull", "someone/mario", pulled)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{pulled}: k112, clear rate 96%")
    assert not (pulled / "evil.pkl").exists()
    ours, theirs = read_exported(exported), read_exported(pulled)
    assert all((ours.weights[name] == theirs.weights[name]).all() for name in ours.weights)
    again = run(hub.url, tmp_path, "pull", "someone/mario", pulled)
    assert again.returncode == 2 and "exists already" in again.stderr


def test_without_a_network_the_command_is_printed(exported, tmp_path):
    nowhere = "http://127.0.0.1:9"
    for words in (["push", exported, "someone/mario"], ["pull", "someone/mario", tmp_path / "x"]):
        result = run(nowhere, tmp_path, *words)
        assert result.returncode == 2 and result.stderr.startswith("error: the Hub: ")
        assert f"try again with: python -m mario_rl.hub {words[0]} " in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_pull_that_fails_leaves_nothing(hub, tmp_path):
    hub.files["config.json"] = b"{}"
    for _ in range(2):
        result = run(hub.url, tmp_path, "pull", "someone/mario", tmp_path / "theirs")
        assert result.returncode == 2 and "error: someone/mario: " in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_link_is_not_sent(hub, exported, tmp_path):
    shutil.copytree(exported, tmp_path / "linked")
    (tmp_path / "linked/README.md").unlink()
    (tmp_path / "linked/README.md").symlink_to("/etc/hostname")
    result = run(hub.url, tmp_path, "push", tmp_path / "linked", "someone/mario")
    assert result.returncode == 2 and "is a link" in result.stderr and not hub.files


def test_what_is_no_model_is_not_sent(hub, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    result = run(hub.url, tmp_path, "push", tmp_path, "someone/mario")
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert not hub.files and not hub.made
