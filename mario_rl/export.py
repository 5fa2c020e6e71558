"""Write a model as a folder to pass on: a model card, safetensors with JSON, and ONNX.

python -m mario_rl.export --model-path 1-1 --to exported/1-1
"""

from functools import partial
from pathlib import Path

from mario_rl.agent.shipped import model_file
from mario_rl.cli import Parser, run_script
from mario_rl.console import say
from mario_rl.errors import UserError


def main() -> None:
    parser = Parser("Write a model as a folder to pass on: a model card, safetensors and ONNX.")
    parser.add_argument(
        "--model-path",
        required=True,
        type=model_file,
        help="a file from models/, or the name of a shipped model, such as 1-1",
    )
    parser.add_argument("--to", required=True, type=Path, help="the folder; it must not exist yet")
    parser.add_argument("--no-onnx", action="store_true", help="leave out model.onnx")
    args = parser.parse_args()

    from mario_rl.agent.exported_model import write_exported
    from mario_rl.agent.model_card import model_card
    from mario_rl.agent.onnx_file import require_onnx, write_onnx
    from mario_rl.agent.saved_model import SavedModel
    from mario_rl.storage.files import atomic_write

    if args.to.exists():
        raise UserError(f"--to {args.to}: exists already; name a new folder")
    model = SavedModel.load(args.model_path)
    if not args.no_onnx:
        require_onnx()  # before the folder is made
    write_exported(model, args.to)
    if not args.no_onnx:
        write_onnx(model.network(), model.config.env.frame_shape, args.to / "model.onnx")
    card = model_card(model).encode()
    atomic_write(args.to / "README.md", lambda file: file.write(card))
    for path in sorted(args.to.iterdir()):
        say(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


command = partial(run_script, main)

if __name__ == "__main__":
    command()
