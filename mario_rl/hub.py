"""Pass exported models on through the Hugging Face Hub.

python -m mario_rl.hub push exported/1-1 USER/NAME
python -m mario_rl.hub pull USER/NAME exported/theirs
"""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from mario_rl.cli import Parser, run_script
from mario_rl.console import command_line, say
from mario_rl.errors import UserError, first_line
from mario_rl.extras import import_extra

# Nothing else is sent or fetched. None of it can run code.
_FILES = ["README.md", "config.json", "model.safetensors", "model.onnx"]


def main() -> None:
    parser = Parser("Pass exported models on through the Hugging Face Hub.")
    commands = parser.add_subparsers(dest="command", required=True)
    push = commands.add_parser("push", help="send a folder that mario_rl.export wrote")
    push.add_argument("folder", type=Path)
    push.add_argument("repo", metavar="USER/NAME", help="made if it does not exist")
    push.add_argument("--private", action="store_true", help="if it is made: only for you")
    pull = commands.add_parser("pull", help="fetch a model, for eval_mario.py --model-path FOLDER")
    pull.add_argument("repo", metavar="USER/NAME")
    pull.add_argument("folder", type=Path, help="it must not exist yet")
    args = parser.parse_args()

    hub = import_extra("huggingface_hub", "models on the Hub", "huggingface_hub")
    command = ["python", "-m", "mario_rl.hub", args.command]
    try:
        if args.command == "push":
            command += [str(args.folder), args.repo, *["--private"] * args.private]
            say(_push(hub, args.folder, args.repo, args.private))
        else:
            command += [args.repo, str(args.folder)]
            say(_pull(hub, args.repo, args.folder))
    except UserError:
        raise
    except Exception as error:  # of the Hub or the network, in any form
        failure = f"the Hub: {type(error).__name__}: {first_line(error)}"
        if isinstance(error, ValueError):  # a name that it does not allow
            raise UserError(failure) from None
        raise UserError(f"{failure}; try again with: {command_line(command)}") from None


def _push(hub: Any, folder: Path, repo: str, private: bool) -> str:
    from mario_rl.agent.exported_model import read_exported

    read_exported(folder)
    if links := [name for name in _FILES if (folder / name).is_symlink()]:
        raise UserError(f"{folder / links[0]} is a link: what it leads to is not sent")
    api = hub.HfApi()
    url = api.create_repo(repo, private=private, exist_ok=True)
    api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=_FILES)
    return str(url)


def _pull(hub: Any, repo: str, folder: Path) -> str:
    from mario_rl.agent.exported_model import read_exported
    from mario_rl.storage.files import make_directory

    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder}: exists already; name a new folder")
    make_directory(folder.parent)
    # The folder appears when it is complete and holds a model.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        fetched = Path(temporary, "model")
        hub.snapshot_download(repo, local_dir=fetched, allow_patterns=_FILES)
        shutil.rmtree(fetched / ".cache", ignore_errors=True)
        try:
            model = read_exported(fetched)
        except UserError as error:
            raise UserError(f"{repo}: {error}".replace(f"{fetched}/", "")) from None
        fetched.rename(folder)
    return f"{folder}: {model.run_name}, {model.evaluation.brief(model.config.env.stage)}"


command = partial(run_script, main)

if __name__ == "__main__":
    command()
