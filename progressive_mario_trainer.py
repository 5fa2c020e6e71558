"""Train an agent on Super Mario Bros., or resume a run."""

from functools import partial

from mario_rl.cli import (
    Parser,
    add_config_flags,
    ending_at_ctrl_c,
    given_settings,
    run_script,
    setting_sources,
)
from mario_rl.config import Config
from mario_rl.console import say, tell


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
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the settings, where they come from, the memory and the time; start nothing",
    )
    add_config_flags(parser)
    args = parser.parse_args()

    # Imported late: workers import this file too, and --help should not wait for torch.
    with ending_at_ctrl_c():
        from mario_rl.storage.paths import RunPaths
        from mario_rl.training.lifecycle import train

        paths = RunPaths(args.output_dir, args.run_name)
        if args.dry_run:
            from mario_rl.training.plan import describe_plan

            config = Config().replaced(given_settings(args))
            for line in describe_plan(config, setting_sources(args)):
                say(line)
            return
        train(paths, given_settings(args), args.resume, tell, args.plain)


command = partial(run_script, main)

if __name__ == "__main__":
    command()
