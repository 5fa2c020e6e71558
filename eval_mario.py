"""Play a model: measure it, watch it, record it, plot where Mario was."""

import argparse
import json
from functools import partial
from pathlib import Path

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
from mario_rl.registry import EMULATORS

# The protocol by which models are judged, and one undisturbed game for the eye.
MEASURE = {"episodes": 20, "epsilon": EVALUATION_EPSILON, "noops": MAX_NOOP_FRAMES}
WATCH = {"episodes": 1, "epsilon": 0.0, "noops": 0}


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add(
        "--model-path",
        required=True,
        type=model_file,
        help="a file from models/, or the name of a shipped model, such as 1-1",
    )
    add("--render", action="store_true", help="show the game in a window (Q closes it)")
    add("--record", action="store_true", help="write every frame to an MP4 in videos/")
    add("--overlay", action="store_true", help="show beside that game what the agent thinks")
    add("--saliency", action="store_true", help="... and, in red, what its value depends on")
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
    args["overlay"] |= args["saliency"]
    if args["overlay"] and not (args["render"] or args["record"]):
        parser.error("--overlay and --saliency need --record or --render")

    with ending_at_ctrl_c():
        from mario_rl.reports.playback import Request, evaluate_model
        from mario_rl.training.signals import Signals

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


command = partial(run_script, main)

if __name__ == "__main__":
    command()
