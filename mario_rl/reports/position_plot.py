"""Where Mario was: x and y over time for the episodes of an evaluation."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mario_rl.evaluation.play import EpisodeResult
from mario_rl.games.interface import FRAME_SKIP, FRAMES_PER_SECOND
from mario_rl.reports.panels import BLUE, GREEN, GREY, PURPLE, VERMILION
from mario_rl.storage.files import atomic_write

# Outcome: label, marker, colour
_ENDS = {
    "clear": ("flag", "*", GREEN),
    "death": ("death", "X", VERMILION),
    "time_up": ("time up", "X", PURPLE),
    "stall": ("no progress", "s", GREY),
    "running": ("cut off", "|", GREY),
}


def save_position_plot(path: Path, results: list[EpisodeResult], title: str) -> None:
    """A PNG with x over time above y over time, and how each episode ended."""
    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    x_axes, y_axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    alpha = max(0.15, 0.9 / len(results) ** 0.5)
    seen = set()
    for result in results:
        seconds = (np.arange(len(result.x)) + 1) * FRAME_SKIP / FRAMES_PER_SECOND
        label, marker, colour = _ENDS[result.outcome]
        for axes, values in ((x_axes, result.x), (y_axes, result.y)):
            axes.plot(seconds, values, color=BLUE, linewidth=1.2, alpha=alpha)
        # The game is set back at a death, and at the flag x is not the furthest.
        for axes, value in ((x_axes, result.x[-1]), (y_axes, result.y[-1])):
            axes.plot(
                seconds[-1], value, marker, color=colour, markersize=9, markeredgecolor="white",
                label="_" if label in seen else label, linestyle="none", clip_on=False,
            )  # fmt: skip
        seen.add(label)
    x_axes.set_ylabel("x (pixels)")
    y_axes.set_ylabel("y (pixels above the bottom)")
    y_axes.set_xlabel("game time (s)")
    episodes = f"{len(results)} episodes" if len(results) > 1 else "one episode"
    x_axes.set_title(f"Mario's position: {title}, {episodes}")
    x_axes.legend(loc="upper left")
    for axes in (x_axes, y_axes):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    atomic_write(path, lambda file: figure.savefig(file, format="png"))
