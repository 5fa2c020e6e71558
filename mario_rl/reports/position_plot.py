"""Where Mario was: x and y over time for the episodes of an evaluation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mario_rl.reports.style import BLUE, GREEN, GREY, PURPLE, VERMILION, our_style  # isort: split

from matplotlib.figure import Figure

from mario_rl.evaluation.play import PlayedEpisode
from mario_rl.games.interface import FRAME_SKIP, FRAMES_PER_SECOND
from mario_rl.storage.files import atomic_write


@dataclass(frozen=True)
class End:
    """How the end of an episode is marked."""

    label: str
    marker: str
    colour: str


ENDS = {  # by the outcome of the episode
    "clear": End("flag", "*", GREEN),
    "death": End("death", "X", VERMILION),
    "time_up": End("time up", "X", PURPLE),
    "stall": End("no progress", "s", GREY),
    "running": End("cut off", ">", GREY),
}


@our_style()
def save_position_plot(path: Path, results: list[PlayedEpisode], title: str) -> None:
    """Write a PNG with x over time above y over time, and how each episode ended.

    Args:
        results: at least one.

    Raises:
        OSError: if the file cannot be written.
    """
    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    x_axes, y_axes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    alpha = max(0.15, 0.9 / len(results) ** 0.5)
    seen: set[End] = set()  # the legend has each once
    for result in results:
        seconds = (np.arange(len(result.x)) + 1) * FRAME_SKIP / FRAMES_PER_SECOND
        end = ENDS[result.episode.outcome]
        for axes, values in ((x_axes, result.x), (y_axes, result.y)):
            axes.plot(seconds, values, color=BLUE, linewidth=1.2, alpha=alpha)
        # At the last position: after a death or at a flag it is not the furthest one.
        for axes, value in ((x_axes, result.x[-1]), (y_axes, result.y[-1])):
            axes.plot(
                seconds[-1], value, end.marker, color=end.colour, markersize=9,
                markeredgecolor="white", label="_" if end in seen else end.label,
                linestyle="none", clip_on=False,
            )  # fmt: skip
        seen.add(end)
    x_axes.set_ylabel("x (pixels)")
    y_axes.set_ylabel("y (pixels above the bottom)")
    y_axes.set_xlabel("game time (s)")
    episodes = f"{len(results)} episodes" if len(results) > 1 else "one episode"
    x_axes.set_title(f"Mario's position: {title}, {episodes}")
    x_axes.legend(loc="upper left")
    atomic_write(path, lambda file: figure.savefig(file, format="png"))
