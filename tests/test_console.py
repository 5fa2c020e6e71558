"""What is said, where it can and where it cannot be written."""

import contextlib
import io
import os
import pty
import subprocess
import sys
import threading

import pytest
from rich.console import Console
from scripts import ROOT
from torture.victims import FLAGS, TRAIN

from mario_rl import console
from mario_rl.agent.saved_model import SavedModel
from mario_rl.storage.files import read_json
from mario_rl.training.display import Display, Status, items_of, panel

# What happens to a stream, in the words of a shell.
CLOSED, FULL = "{}>&-", "{}>/dev/full"


def shell(code, redirection="", stdout=subprocess.PIPE):
    """Run `code` as a script in a shell; returns the exit code, output and errors."""
    script = f"import sys\nfrom mario_rl.cli import run_script\n{code}"
    result = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, script],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        cwd=ROOT,
    )
    return result.returncode, result.stdout, result.stderr.decode()


def speaking(*lines):
    """A script that imports the console and has these lines."""
    body = "".join(f"    {line}\n" for line in lines)
    return f"from mario_rl.console import *\ndef main():\n{body}run_script(main)"


class Reader:
    """stdout of a process; nobody reads it any more."""

    def __enter__(self):
        self._theirs = self.end()
        return self._theirs

    def __exit__(self, *_):
        os.close(self._theirs)


class Pipe(Reader):
    def end(self):
        ours, theirs = os.pipe()
        os.close(ours)
        return theirs


class Terminal(Reader):
    def end(self):
        ours, theirs = pty.openpty()
        os.close(ours)
        return theirs


# a result that cannot be written, and a report


@pytest.mark.parametrize(
    ("redirection", "reason"), [(CLOSED, "it is closed"), (FULL, "No space left on device")]
)
def test_a_lost_result_is_an_error_and_a_lost_report_is_none(redirection, reason):
    redirection = redirection.format(1)
    code, _, errors = shell(speaking("say('result')", "note('not reached')"), redirection)
    assert code == 2
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert reason in errors and "standard output" in errors
    code, _, errors = shell(speaking("tell('1')", "tell('2')", "note('done')"), redirection)
    assert code == 0
    warning, done = errors.splitlines()
    assert warning.startswith("warning: standard output") and reason in warning
    assert done == "done"


@pytest.mark.parametrize(
    ("reader", "code", "reason"), [(Pipe, 0, "Broken pipe"), (Terminal, 2, "Input/output error")]
)
def test_nobody_reads(reader, code, reason):
    with reader() as stdout:
        ended, _, errors = shell(speaking("say('1')", "note('not reached')"), stdout=stdout)
    assert ended == code
    assert errors == "" if code == 0 else reason in errors and "not reached" not in errors
    with reader() as stdout:
        ended, _, errors = shell(speaking("tell('1')", "note('done')"), stdout=stdout)
    assert ended == 0
    assert reason in errors and errors.endswith("\ndone\n")


@pytest.mark.parametrize("redirection", [CLOSED, FULL])
def test_without_stderr_nothing_else_changes(redirection):
    lines = "note('beside')", "warn('beside')", "print('other code', file=sys.stderr)", "say('1')"
    assert shell(speaking(*lines[:2], lines[3]), redirection.format(2))[:2] == (0, b"1\n")
    if redirection is CLOSED:  # print would write to stdout
        assert shell(speaking(*lines), redirection.format(2))[:2] == (0, b"1\n")
    code = speaking("from mario_rl.errors import UserError", "raise UserError('wrong')")
    assert shell(code, redirection.format(2))[:2] == (2, b"")


def test_what_other_code_could_not_write_does_not_change_the_exit_code():
    code = speaking("print('other code, not flushed')")
    assert shell(code, FULL.format(1))[0] == 0


def test_files_do_not_take_the_places_of_closed_streams(tmp_path):
    code = speaking(
        "import subprocess",
        f"file = open({str(tmp_path / 'file')!r}, 'w+')",
        "os.write(2, b'from native code')",
        "child = 'read x; echo 1 && echo 2 >&2'",
        "file.write(f'{file.fileno() > 2} {subprocess.call(child, shell=True)}')",
    )
    assert shell(code, "<&- >&- 2>&-")[0] == 0
    assert (tmp_path / "file").read_text() == "True 0"


def test_help_and_wrong_flags():
    code = "from mario_rl.cli import Parser\nrun_script(Parser('what it does').parse_args)"
    assert shell(f"sys.argv = ['x', '--help']\n{code}", FULL.format(1))[0] == 2
    with Pipe() as stdout:
        assert shell(f"sys.argv = ['x', '--help']\n{code}", stdout=stdout)[0] == 0
    ended, _, errors = shell(f"sys.argv = ['x', '--\\x1b[31m\\udce9']\n{code}")
    assert ended == 2
    assert r"--\x1b[31m\xe9" in errors and errors.count("\n") == 1
    assert shell(f"sys.argv = ['x', '--y']\n{code}", FULL.format(2))[0] == 2


# text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext, über 第一", "plain\n\ttext, über 第一"),
        ("\x1b[2J\x07\r\x7f", r"\x1b[2J\x07\x0d\x7f"),
        ("\x85\x9b31m", r"\u0085\u009b31m"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_and_bytes_are_shown_as_escapes(text, shown, capsys):
    assert console.printable(text) == shown
    console.say(text)
    console.note(text)
    assert capsys.readouterr() == (f"{shown}\n", f"{shown}\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16"])
def test_every_encoding_takes_every_text(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    console.say("über 第一")
    shown = "über 第一".encode(encoding, "backslashreplace").decode(encoding)
    assert stream.buffer.getvalue().decode(encoding) == shown + "\n"


def test_a_closed_file_is_a_closed_stream(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(OSError, match="closed"):
        console.say("1")
    console.tell("1")
    console.warn("1")
    console.drop_unwritten()


@pytest.mark.parametrize("name", ["a b", "it's", os.fsdecode(b"c\xe9 '\\"), "\x1b[1m", "ü\x85"])
def test_a_shell_reads_the_command_line_that_was_printed(name, tmp_path):
    (tmp_path / name).mkdir()
    line = console.command_line(["cd", name])
    assert console.printable(line) == line
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    result = subprocess.run(["bash", "-c", f"{line} && pwd"], cwd=tmp_path, stdout=-1, env=env)
    assert os.fsdecode(result.stdout) == f"{tmp_path / name}\n"


# the live panel

USUAL = Status(
    episodes=12_345,
    num_episodes=100_000,
    env_steps=312_345,
    updates=412_345,
    epsilon=0.012,
    loss=0.5678,
    mean_return=312.6,
    furthest=(1, 1, 3161),
    best="96% cleared",
    memory_bytes=int(3.4 * 2**30),
    gpu_bytes=0,
    budget_spent=0.4,
)
LARGE = Status(
    episodes=1_234_567,
    num_episodes=10_000_000,
    env_steps=123_456_789,
    updates=123_456_789,
    epsilon=0.012,
    loss=1234.5678,
    mean_return=-12_345.6,
    furthest=(8, 4, 4321),
    best="12.34 stages a game",
    memory_bytes=int(123.4 * 2**30),
    gpu_bytes=int(123.4 * 2**30),
    budget_spent=0.4,
)


@pytest.mark.parametrize("status", [USUAL, LARGE], ids=["usual", "large"])
def test_the_panel_shows_every_value_whole(status):
    items = items_of(status, ("1234", "123.45"), "123 h 59 min")
    for width in (*range(40, 150), 300):
        terminal = Console(width=width, file=io.StringIO())
        terminal.print(panel("run", items, status.budget_spent, width))
        lines = terminal.file.getvalue().splitlines()
        for name, value in items:
            whole = any(f"{name} " in line and f" {value} " in line for line in lines)
            assert whole, (name, width)
        assert {len(line) for line in lines} == {width}
        assert len(lines) <= 16


def test_the_panel_has_fewer_columns_where_it_is_narrow():
    def height(width):
        terminal = Console(width=width, file=io.StringIO())
        items = items_of(USUAL, ("1234", "123.45"), "12 h 59 min")
        terminal.print(panel("run", items, 0.4, width))
        return terminal.file.getvalue().count("\n")

    assert [height(width) for width in (40, 60, 80, 100)] == [14, 9, 7, 6]


@pytest.fixture
def xterm(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("JPY_PARENT_PID", "MPLBACKEND", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def shown(plain=False):
    """What a terminal gets to see of a run."""
    ours, theirs = pty.openpty()
    output = []

    def read():  # at once, as a terminal holds only some KB
        with contextlib.suppress(OSError):
            while True:
                output.append(os.read(ours, 1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    with open(theirs, "w") as stdout, contextlib.redirect_stdout(stdout):
        display = Display("run", plain)
        display.update(USUAL)
        display.line("a line \x1b[2J [bold] :smile:")
        display.close()
    reader.join()
    os.close(ours)
    return b"".join(output).decode()


def test_a_terminal_has_a_live_panel(xterm):
    output = shown()
    assert "╭" in output and "312,345" in output
    assert r"a line \x1b[2J [bold] :smile:" in output


@pytest.mark.parametrize(
    "variables",
    [
        {"TERM": "dumb"},
        {"TERM": ""},
        {"JPY_PARENT_PID": "1"},
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {},
    ],
)
def test_plain_lines(xterm, variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    output = shown(plain=not variables)
    assert "\x1b" not in output and "╭" not in output
    assert output.splitlines()[0].startswith("episode 12345/100000  steps 312,345")


def test_a_terminal_that_goes_away(xterm, capsys):
    console.warn_once.cache_clear()
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stdout, contextlib.redirect_stdout(stdout):
        display = Display("run")
        os.close(ours)
        display.update(USUAL)
        assert display._live is None
        display.line("lost")
        display.update(USUAL)
        display.close()
        console.drop_unwritten()
    assert capsys.readouterr().err.count("Input/output error") == 1


# whole runs


@pytest.mark.parametrize("redirection", [">/dev/full", "<&- >&- 2>&-"])
def test_a_run_that_nobody_sees_is_trained_and_saved(redirection, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")  # no UTF-8, which TensorBoard does not take
    folder.mkdir()
    words = [str(TRAIN), "--run-name", "unseen", *FLAGS, "--num-episodes", "2"]
    words += ["--output-dir", folder.name]
    result = subprocess.run(
        ["bash", "-c", f'exec "$0" "$@" {redirection}', sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
    )
    errors = result.stderr.decode().splitlines()
    assert result.returncode == 0, errors
    assert [line.split()[1] for line in errors] == ["standard", "TensorBoard"][: len(errors)]
    assert bool(errors) == ("2>" not in redirection)
    model = SavedModel.load(folder / "models/unseen.pth")
    assert model.evaluation.eval_episodes == 2
    description = read_json(folder / "stats/unseen/run.json")
    assert r"--output-dir $'caf\xe9'" in description["command"]
    description["command"].encode()  # no surrogate


def test_an_ignored_ctrl_c_stays_ignored():
    """As in the background of a script."""
    code = (
        "import os, signal\n"
        "from mario_rl.cli import ending_at_ctrl_c\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with ending_at_ctrl_c():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "print('still here')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "still here\n"
