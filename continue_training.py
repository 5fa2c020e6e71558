"""Prepare the next iteration of training from the best model of the earlier runs.

The new run keeps the model's settings, but epsilon starts at 0.1 or lower, and the learning rate
stays as it was when the model was saved. Flags that are given here override all of these.
"""

from functools import partial
from pathlib import Path

from mario_rl.agent.shipped import model_file
from mario_rl.cli import (
    Parser,
    add_config_flags,
    ending_at_ctrl_c,
    given_settings,
    number,
    run_script,
)
from mario_rl.console import tell


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add(
        "--iteration",
        type=number(int, "[2, 1000000]"),
        help="number of the new iteration; only models of earlier ones are candidates "
        "(default: one more than the chosen model's)",
    )
    add(
        "--model-path",
        type=model_file,
        help="start from this file, or from the shipped model of this name, instead of the best "
        "model of the earlier runs",
    )
    add(
        "--run-name",
        help="name of the new run (default: NAME-iterN or, if taken, NAME-iterN-2, ...)",
    )
    add("--reset-optimizer", action="store_true", help="do not take over the state of Adam")
    add("--start", action="store_true", help="train at once instead of printing the command")
    add("--plain", action="store_true", help="with --start: plain lines instead of the live panel")
    add("--output-dir", type=Path, default=Path("."), help="where models/ and the others lie")
    add_config_flags(parser, show_defaults=False)
    args = parser.parse_args()

    with ending_at_ctrl_c():
        from mario_rl.training.continuation import create_iteration, find_best_model
        from mario_rl.training.lifecycle import train
        from mario_rl.training.resume_command import resume_command

        model_path = args.model_path or find_best_model(args.output_dir, args.iteration, tell)
        paths = create_iteration(
            model_path,
            args.output_dir,
            run_name=args.run_name,
            iteration=args.iteration,
            changes=given_settings(args),
            reset_optimizer=args.reset_optimizer,
            say=tell,
        )
        if args.start:
            train(paths, {}, resume=True, say=tell, plain=args.plain)
        else:
            tell(f"train it with:\n{resume_command(paths)}")


command = partial(run_script, main)

if __name__ == "__main__":
    command()
