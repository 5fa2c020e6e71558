"""Play a model: measure it, watch it, record it, plot where Mario was."""

import argparse
import json
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from mario_rl.agent.shipped import model_file
from mario_rl.cli import Parser, ending_at_ctrl_c, number, run_script
from mario_rl.config import (
    EVALUATION_EMULATOR,
    EVALUATION_EPSILON,
    FULL_GAME,
    MAX_NOOP_FRAMES,
    STAGES,
)
from mario_rl.console import note, say, tell
from mario_rl.errors import UserError
from mario_rl.registry import EMULATORS
from mario_rl.settings import flag_of

# The protocol by which models are judged, and one undisturbed game for the eye.
MEASURE = {"episodes": 20, "epsilon": EVALUATION_EPSILON, "noops": MAX_NOOP_FRAMES}
WATCH = {"episodes": 1, "epsilon": 0.0, "noops": 0}


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add(
        "--model-path",
        type=model_file,
        help="a file from models/, or the name of a shipped model, such as 1-1",
    )
    add("--render", action="store_true", help="show the game in a window (Q closes it)")
    add("--record", action="store_true", help="write every frame to an MP4 in videos/")
    add("--overlay", action="store_true", help="show beside that game what the agent thinks")
    add("--saliency", action="store_true", help="... and, in red, what its value depends on")
    add(
        "--human", action="store_true", help="play yourself in a window; --model-path is your rival"
    )
    add(
        "--record-demo",
        type=Path,
        metavar="FILE",
        help="write the best game of --human, frame by frame, to this file",
    )
    add(
        "--replay-demo",
        type=Path,
        metavar="FILE",
        help="play such a file again instead of a model",
    )
    add("--plot", action="store_true", help="draw x and y over time into a PNG in videos/")
    add("--json", action="store_true", help="print the results as JSON on stdout")
    add("--stage", choices=(FULL_GAME, *STAGES), metavar="STAGE", help="default: the model's own")
    add(
        "--emulator",
        choices=EMULATORS.names(),
        default=EVALUATION_EMULATOR,
        help="the emulator that plays (default: %(default)s, that of gym-super-mario-bros)",
    )
    for flag, kind, interval, text in (
        ("episodes", int, "[1, 100000]", "games to play"),
        ("epsilon", float, "[0, 1]", "probability of a random action"),
        ("noops", int, "[0, 255]", "each game starts after 0 to this many frames, drawn evenly"),
    ):
        text += f" (default: {MEASURE[flag]}; {WATCH[flag]} for one game with --render or --record)"
        add(f"--{flag}", type=number(kind, interval), default=argparse.SUPPRESS, help=text)
    add("--max-steps", type=number(int, "[1, inf)"), help="end games after this many decisions")
    seeds = number(int, "[0, 4294967295]")
    add("--seed", type=seeds, default=0, help="seed of random actions and waits (default: 0)")
    delays = number(float, "[0, 60]")
    add("--delay", type=delays, default=1 / 60, help="seconds between frames (default: 1/60)")
    add("--output-dir", type=Path, default=Path("."), help="where videos/ lies (default: here)")
    args = vars(parser.parse_args())
    _check(parser, args)
    args["overlay"] |= args["saliency"]
    if args["overlay"] and not (args["render"] or args["record"]):
        parser.error("--overlay and --saliency need --record or --render")

    with ending_at_ctrl_c():
        from mario_rl.reports.playback import (
            Request,
            Viewing,
            evaluate_model,
            replay_demonstration,
        )
        from mario_rl.training.signals import Signals

    if args["human"]:
        _play_yourself(args)
        return
    if args["replay_demo"]:
        viewing = Viewing(**{item.name: args[item.name] for item in fields(Viewing)})
        replay_demonstration(args["replay_demo"], args["emulator"], viewing, tell)
        return
    for name in ("human", "record_demo", "replay_demo"):
        del args[name]
    as_json = args.pop("json")
    watch = args["render"] or args["record"]
    # Several games without any randomness would be one game, several times.
    defaults = WATCH if watch and args.get("episodes", 1) == 1 else MEASURE
    request = Request(**{**defaults, **args})
    makes_file = args["record"] or args["plot"]  # which is made even if nobody reads the figures
    show_line = note if as_json else tell if makes_file else say
    signals = Signals()
    with signals.handled():
        report = evaluate_model(request, show_line, signals.stop_requested)
        if as_json:
            say(json.dumps(report, indent=2))
    if signals.stop_requested():
        raise KeyboardInterrupt  # exit code 130


def _check(parser: Parser, args: dict[str, Any]) -> None:
    """What goes together."""
    has_default = {"emulator", "delay", "output_dir"}
    given = {name for name, value in args.items() if value not in (None, False)} - has_default
    for mode, others in (
        ("human", {"stage", "model_path", "record_demo"}),
        ("replay_demo", {"render", "record"}),
    ):
        if mode in given and (foreign := given - others - {mode}):
            parser.error(f"{flag_of(mode)} does not go with {flag_of(min(foreign))}")
    if "record_demo" in given and "human" not in given:
        parser.error("--record-demo needs --human")
    if "record_demo" in given and args["emulator"] != EVALUATION_EMULATOR:
        parser.error(f"--record-demo needs --emulator {EVALUATION_EMULATOR}")
    if not given & {"human", "replay_demo", "model_path"}:
        parser.error("one of --model-path, --human and --replay-demo is required")


def _play_yourself(args: dict[str, Any]) -> None:
    from mario_rl.agent.exported_model import load_model
    from mario_rl.reports.human import play

    rival = load_model(args["model_path"]) if args["model_path"] else None
    stage = args["stage"] or (rival.config.env.stage if rival else FULL_GAME)
    if rival is not None and rival.config.env.stage != stage:
        raise UserError(f"the model plays {rival.config.env.stage}, and you would play {stage}")
    play(stage, args["emulator"], rival, args["record_demo"], say)


command = partial(run_script, main)

if __name__ == "__main__":
    command()
