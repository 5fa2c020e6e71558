"""Runs the steps of the Dockerfile without Docker: `pip` in a fresh virtual environment, the rest
not at all; and then what the image is for, in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    text = (ROOT / "Dockerfile").read_text()
    wanted = re.search(r"^FROM python:([\d.]+)-slim$", text, re.M)[1]
    if sys.version_info[:2] != tuple(map(int, wanted.split("."))):
        sys.exit(f"error: the image has Python {wanted}: run this with it")
    steps = [line.removeprefix("RUN ") for line in text.splitlines() if line.startswith("RUN pip ")]
    with tempfile.TemporaryDirectory() as folder:
        # As COPY does: what Git knows.
        source = Path(folder, "source")
        files = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT)
        for name in files.decode().splitlines():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target, follow_symlinks=False)
        venv, work = Path(folder, "venv"), Path(folder, "work")
        work.mkdir()
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        environment = {**os.environ, "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}
        for step in steps:
            # torch comes from the index of this machine
            step = step.replace("--extra-index-url $TORCH_INDEX ", "").replace(
                "/source", str(source)
            )
            print("+", step, flush=True)
            subprocess.run(step, shell=True, env=environment, cwd=work, check=True)
        for command in (
            "mario-eval --help",
            "mario-eval --model-path 1-1 --episodes 2",
            "mario-train --run-name first --stage 1-1 --num-episodes 5 --eval-episodes 2 --plain",
            "mario-plot --run-name first --html",
        ):
            print("+", command, flush=True)
            subprocess.run(command, shell=True, env=environment, cwd=work, check=True)


if __name__ == "__main__":
    main()
