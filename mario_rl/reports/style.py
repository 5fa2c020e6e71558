"""How the figures look: colours and Matplotlib settings.

The colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from typing import Any

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY, PALE_BLUE = "#E69F00", "#56B4E9", "#808080", "#BBDDF3"

LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "black")  # of runs, in their order

RC_PARAMS: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 12,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a name with a $ is a name
}
