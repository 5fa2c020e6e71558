"""The scripts, called in this process."""

import contextlib
import io
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def call(script, words, folder):
    """Run a script in a folder; returns its exit code, output and errors."""
    output, errors = io.StringIO(), io.StringIO()
    argv, working_directory = sys.argv, Path.cwd()
    sys.argv = [script, *words]
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            runpy.run_path(str(ROOT / script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = argv
        os.chdir(working_directory)
    return code, output.getvalue(), errors.getvalue()
