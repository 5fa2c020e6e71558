"""How the figures look: colours and Matplotlib settings, the same for every user.

The colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart.

Modules that import Matplotlib import this one first. MPLBACKEND may name a backend that this Python
does not have: a notebook passes its own to every program that it starts. Importing Matplotlib then
fails, although only a window needs a backend.
"""

import os
import sys
from contextlib import ContextDecorator, suppress
from typing import Any


def _import_matplotlib() -> None:
    """Import Matplotlib, and take MPLBACKEND only if it names a backend that there is."""
    backend = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


if "matplotlib" not in sys.modules:
    _import_matplotlib()

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY, PALE_BLUE = "#E69F00", "#56B4E9", "#808080", "#BBDDF3"

# Of runs, in their order: first all colours with the first dashes.
LINE_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, "black")
LINE_DASHES = ("-", "--", ":", "-.")

_RC_PARAMS: dict[str, Any] = {
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
    "text.parse_math": False,  # a name such as a$b$ is shown as it is
}


def our_style() -> ContextDecorator:
    """Decorates functions that draw: in them Matplotlib has its default settings and ours, whatever
    the user's matplotlibrc says. Afterwards the settings are as before.
    """
    from matplotlib import style

    return style.context(["default", _RC_PARAMS])
