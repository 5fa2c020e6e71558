"""How programs are compared on a machine whose speed changes from one second to the next.

A contender is a child process that prepares itself and then plays one round for each line that it
is sent. Two contenders take turns, one blocked while the other plays, so that what slows the
machine down slows both; a result is the median over adjacent rounds of the ratio of their speeds.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
# For a quick try of the benchmarks themselves; what they measure then means little.
SCALE = float(os.environ.get("MARIO_RL_BENCHMARK_SCALE", "1"))
ROUNDS = 7 if SCALE >= 1 else 2


def scaled(size: int) -> int:
    return max(1, round(size * SCALE))


@dataclass(frozen=True)
class Result:
    id: int
    name: str
    ratio: float
    bar: float
    holds: bool
    rounds: int
    spread: tuple[float, float]  # the least and the greatest ratio of a round
    peers: dict[str, float] = field(default_factory=dict)  # the ratio to each, where many


def result(
    id: int, name: str, ratios: Sequence[float], bar: float, *, at_most: bool = False
) -> Result:
    """Sum the ratios of the rounds up. The bar is the least allowed, or with `at_most` the most."""
    ratio = statistics.median(ratios)
    holds = ratio <= bar if at_most else ratio >= bar
    spread = round(min(ratios), 4), round(max(ratios), 4)
    return Result(id, name, round(ratio, 4), bar, holds, len(ratios), spread)


class Turns:
    """The side of the contender: when to play."""

    def __init__(self) -> None:
        # What libraries print must not get among the answers.
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def wait(self, **answer: Any) -> None:
        """Tell what the last round was (nothing before the first), and block until the next one.

        Raises:
            SystemExit: if there is none.
        """
        print(json.dumps(answer), file=self._answers)
        if not sys.stdin.readline():
            raise SystemExit(0)

    def play(self, round: Callable[[], dict[str, Any]]) -> NoReturn:
        """Play the rounds of a contender that is ready."""
        answer: dict[str, Any] = {}
        while True:
            self.wait(**answer)
            answer = round()


class Contender:
    """The side of the benchmark: a child process, `python -m <module> <name> <arguments>`.

    Its rounds are dictionaries of `seconds`, `work` and whatever is worth printing; where two
    contenders both tell the `state` they came to, it must be the same.
    """

    def __init__(
        self,
        module: str,
        name: str,
        python: str = sys.executable,
        arguments: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python, "-m", module, name, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> "Contender":
        self._read()  # it is ready
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def round(self, **labels: Any) -> dict[str, Any]:
        """Let it play a round; prints the answer, after the labels, as a line of JSON."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        answer = self._read()
        print(json.dumps({**labels, "contender": self.name, **answer}), flush=True)
        return answer

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            fail(f"contender {self.name!r} ended early (exit code {self._process.wait()})", code=1)
        answer: dict[str, Any] = json.loads(line)
        return answer


def compare(benchmark: str, ours: Contender, other: Contender) -> list[float]:
    """How many times as fast `ours` is, for each round after the first, which warms up."""
    ratios = []
    for number in range(ROUNDS + 1):
        pair = [c.round(benchmark=benchmark, round=number) for c in (ours, other)]
        if len({answer.get("state") for answer in pair}) > 1:
            fail(f"{benchmark}: the contenders did not come to the same state", code=1)
        speed, other_speed = (answer["work"] / answer["seconds"] for answer in pair)
        ratios.append(speed / other_speed)
    return ratios[1:]


def stay_on_one_core() -> None:
    """Keep this process, and those that it starts from now on, on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def digest(memory: bytes) -> str:
    """A short name for a state of the console's memory."""
    return hashlib.sha256(memory).hexdigest()[:16]


def peers_python() -> str:
    """The interpreter of the environment that the peers are installed in."""
    python = os.environ.get("MARIO_RL_PEERS_PYTHON")
    if not python or not Path(python).is_file():
        fail(
            "set MARIO_RL_PEERS_PYTHON to the python of an environment with "
            "benchmarks/requirements-peers.txt installed",
            code=2,
        )
    return python


def fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def print_table(results: Sequence[Result]) -> None:
    print(f"\n{'id':>2}  {'benchmark':14}{'ratio':>8}{'bar':>8}  holds  rounds  spread")
    for r in results:
        low, high = r.spread
        print(
            f"{r.id:>2}  {r.name:14}{r.ratio:8.3f}{r.bar:8.3f}  {'yes' if r.holds else 'NO':5}"
            f"  {r.rounds:6}  {low:.3f} .. {high:.3f}"
        )
        for peer, ratio in r.peers.items():
            print(f"      {peer:20}{ratio:8.3f}")


def to_json(result: Result) -> dict[str, Any]:
    values = asdict(result)
    if not result.peers:
        del values["peers"]
    return values


def main(run: Callable[[], Result], contenders: Mapping[str, Callable[[Turns], None]]) -> None:
    """A benchmark on its own, or with an argument, one of its contenders."""
    if len(sys.argv) > 1:
        contenders[sys.argv[1]](Turns())
    else:
        print_table([run()])
