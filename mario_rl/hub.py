"""Pass exported models on through the Hugging Face Hub.

python -m mario_rl.hub push exported/1-1 USER/NAME
python -m mario_rl.hub pull USER/NAME exported/theirs
"""

from functools import partial
from pathlib import Path

from mario_rl.cli import Parser, run_script
from mario_rl.console import command_line, note, say
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

    from mario_rl.agent.exported_model import read_exported

    hub = import_extra("huggingface_hub", "models on the Hub", "huggingface_hub")
    command = ["python", "-m", "mario_rl.hub", args.command]
    try:
        if args.command == "push":
            command += [str(args.folder), args.repo, *["--private"] * args.private]
            read_exported(args.folder)
            api = hub.HfApi()
            url = api.create_repo(args.repo, private=args.private, exist_ok=True)
            api.upload_folder(repo_id=args.repo, folder_path=args.folder, allow_patterns=_FILES)
            say(str(url))
        else:
            command += [args.repo, str(args.folder)]
            if args.folder.exists():
                raise UserError(f"{args.folder}: exists already; name a new folder")
            hub.snapshot_download(args.repo, local_dir=args.folder, allow_patterns=_FILES)
            model = read_exported(args.folder)
            say(
                f"{args.folder}: {model.run_name}, {model.evaluation.brief(model.config.env.stage)}"
            )
    except UserError:
        raise
    except Exception as error:  # of the Hub or the network, in any form
        note(f"try again with: {command_line(command)}")
        raise UserError(f"the Hub: {type(error).__name__}: {first_line(error)}") from None


command = partial(run_script, main)

if __name__ == "__main__":
    command()
