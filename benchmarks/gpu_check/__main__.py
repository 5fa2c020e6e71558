"""What can only be known on a GPU, in one command that keeps to a budget of time:

python -m benchmarks.gpu_check [--minutes 8] [--device cuda]

Prints a line for each check, and writes all figures to $OUT/gpu-check.json, or without $OUT to
build/gpu-check.json. A check for which too little time is left is skipped. Exit code 0: none
failed; 1: some did; 2: there is no GPU, or a package is missing. With `--device cpu` everything
runs that does not need CUDA, to try the checks themselves.
"""

import argparse
import faulthandler
import importlib.util
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import ROOT, fail

_NEEDED = ("torch", "numpy", "cv2", "gymnasium", "pandas", "psutil", "gym_super_mario_bros")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="of all checks (default: 8)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * args.minutes - 5
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        fail(f"no {', '.join(missing)}: docs/performance.md says what to put on PYTHONPATH", 2)
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        fail("PyTorch sees no CUDA GPU here; --device cpu runs what needs none", code=2)
    # Whatever hangs, even in a driver, does not keep the machine.
    faulthandler.dump_traceback_later(60 * args.minutes, exit=True, file=2)
    try:
        return _run(args.device, deadline)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _run(device_name: str, deadline: float) -> int:
    """Imported late: the worker processes import this file, too."""
    import torch

    from benchmarks.gpu_check import commands, paths, speeds
    from benchmarks.gpu_check.check import Check, Outcome, Part
    from mario_rl.machine import hardware, versions

    parts = (
        Part("networks", 20, paths.networks),
        Part("replay's frames", 20, paths.frames),
        Part("memory fraction", 10, paths.memory, needs_cuda=True),
        Part("commands", 90, commands.commands),
        Part("updates", 20, speeds.updates),
        Part("loop on fceumm", 20, speeds.loops("fceumm")),
        Part("loop on nes-py", 20, speeds.loops("nes-py")),
        Part("update as a CUDA graph", 15, paths.graph),
        Part("speed of the graph", 15, speeds.graph),
        Part("loop with the graph", 20, speeds.graph_loops),
        Part("90 of 100 on 1-1", 90, commands.learns),
    )
    device = torch.device(device_name)
    machine = hardware()
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    about = {"hardware": machine, "versions": versions()}
    print(json.dumps(about), flush=True)
    path = Path(os.environ.get("OUT") or ROOT / "build") / "gpu-check.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as directory:
        check = Check(device, Path(directory), deadline)
        for part in parts:
            for outcome in part.outcomes(check):
                word = {True: "pass", False: "FAIL", None: "skip"}[outcome.passed]
                print(f"{word}  {outcome.name}: {outcome.text}", flush=True)
                outcomes.append(outcome)
                report = {**about, "outcomes": [asdict(each) for each in outcomes]}
                path.write_text(json.dumps(report, indent=2) + "\n")
    failed = [outcome.name for outcome in outcomes if outcome.passed is False]
    print(f"{len(failed)} failed{': ' if failed else ''}{', '.join(failed)}; figures: {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
