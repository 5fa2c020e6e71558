"""Train an agent on Super Mario Bros., or resume a run."""

from functools import partial

from mario_rl.cli import Parser, add_config_flags, ending_at_ctrl_c, given_settings, run_script
from mario_rl.console import tell


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--run-name", required=True, help="names the run's files")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint")
    parser.add_argument(
        "--output-dir",
        default=".",
        help="where models/, checkpoints/, stats/ and videos/ lie (default: this directory)",
    )
    parser.add_argument(
        "--plain", action="store_true", help="plain lines instead of the live panel"
    )
    add_config_flags(parser)
    args = parser.parse_args()

    # Imported late: workers import this file too, and --help should not wait for torch.
    with ending_at_ctrl_c():
        from mario_rl.storage.paths import RunPaths
        from mario_rl.training.lifecycle import train

        paths = RunPaths(args.output_dir, args.run_name)
        train(paths, given_settings(args), args.resume, tell, args.plain)


command = partial(run_script, main)

if __name__ == "__main__":
    command()
