"""A report for a browser: one file that needs no network.

Plotly (https://plotly.com/javascript) draws the charts. It is packed with gzip into the file; the
browser unpacks it.
"""

import base64
import gzip
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from mario_rl.config import Config, settings
from mario_rl.console import warn_once
from mario_rl.errors import UserError
from mario_rl.extras import import_extra
from mario_rl.reports.charts import Chart, comparison_charts, losses_chart, run_charts
from mario_rl.reports.comparison import Group, format_table, notes
from mario_rl.reports.recorded_runs import RecordedRun
from mario_rl.settings import flag_of
from mario_rl.storage.files import file_version
from mario_rl.storage.paths import RunPaths
from mario_rl.training.description import Description, read_description

_TEMPLATE = Path(__file__).with_name("report.html")
_DECIDED = ("emulator", "threads")  # a run decides them on its machine
_VIDEO_SUFFIXES = (".mp4", ".webm")


@dataclass(frozen=True)
class Report:
    """What a page shows."""

    title: str
    summary: str
    charts: list[Chart]
    sections: list[tuple[str, str]]  # a title, and HTML

    def parts(self) -> dict[str, str]:
        """HTML for the places of the template that change while a run goes on, by their ids."""
        sections = (
            f"<section><h2>{_text(title)}</h2>\n{body}</section>" for title, body in self.sections
        )
        return {"summary": _text(self.summary), "sections": "\n".join(sections)}

    def page(self, is_live: bool = False) -> bytes:
        """The whole page.

        Args:
            is_live: let it ask its server for new `parts` and charts every few seconds.

        Raises:
            UserError: if Plotly is not installed.
        """
        plotly = _plotly()
        values = self.parts() | {
            "title": _text(self.title),
            # In a script only "</" and "<!--" would be read as HTML.
            "charts": json.dumps(self.charts, separators=(",", ":")).replace("<", "\\u003c"),
            "plotly": base64.b64encode(
                gzip.compress(plotly.get_plotlyjs().encode(), mtime=0)
            ).decode(),
            "live": "yes" if is_live else "no",
        }
        template = _TEMPLATE.read_text(encoding="utf-8")
        page = re.sub(r"@(\w+)@", lambda match: values[match[1]], template)
        return page.encode(errors="replace")


def run_report(paths: RunPaths, run: RecordedRun, place: Path | None = None) -> Report:
    """The report of one run.

    Args:
        place: the file that will hold it; the run's videos are linked relative to that.
    """
    _plotly()  # before what takes longer
    description = None if "run.json" in run.missing else read_description(paths)
    stage = "the full game" if run.full_game else f"stage {run.config.env.stage}"
    return Report(
        run.name,
        f"{stage}, iteration {run.iteration}, seed {run.config.run.seed}: "
        f"{run.total('episodes'):,.0f} episodes, {run.total('env_steps'):,.0f} env steps, "
        f"{run.total('hours'):.2f} hours",
        [*run_charts(run), _losses(paths, run)],
        [
            ("Evaluations", _evaluations(run)),
            *(_videos(paths, place) if place else ()),
            ("Settings", _settings([run])),
            *(_about(description) if description else ()),
        ],
    )


def comparison_report(groups: Sequence[Group], table: pd.DataFrame) -> Report:
    """The report of several runs; `table` is that of `comparison`."""
    _plotly()
    runs = [run for group in groups for run in group.runs]
    text = "\n".join(f"<p>{_text(note)}</p>" for note in notes(groups))
    return Report(
        " and ".join(group.label for group in groups),
        f"{len(runs)} runs",
        comparison_charts(groups),
        [
            ("Results", f"<pre tabindex=0>{_text(format_table(table))}</pre>{text}"),
            ("Settings that differ", _settings(runs)),
        ],
    )


def _plotly() -> Any:
    """
    Raises:
        UserError: if it is not installed.
    """
    return import_extra("plotly.offline", "reports", "plotly")


def _losses(paths: RunPaths, run: RecordedRun) -> Chart:
    """Where games are lost, over a picture of the stage if there is a model that can show it."""
    chart = losses_chart(run)
    if chart["lines"] and not run.full_game and paths.model.exists():
        try:
            chart["picture"] = _picture(paths.model, file_version(paths.model))
        except UserError as error:
            warn_once(f"{error}; the report is without the picture of the stage")
    return chart


@lru_cache(maxsize=1)
def _picture(model: Path, version: object) -> dict[str, Any]:
    """The stage of a model as `charts` describes a picture, made once for each version of it."""
    import cv2

    from mario_rl.agent.saved_model import SavedModel
    from mario_rl.reports.stage_picture import stage_picture

    pixels = stage_picture(SavedModel.load(model))
    _, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    source = "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()
    return {"source": source, "width": pixels.shape[1]}


def _evaluations(run: RecordedRun) -> str:
    if run.evaluations.empty:
        return "<p>No evaluation yet.</p>"
    header = ("env steps", "hours", "cleared", "95 % interval", "mean x", "mean return", "best")
    rows = (
        (
            f"{row.env_steps:,.0f}",
            f"{row.hours:.2f}",
            f"{row.clears:.0f} of {row.eval_episodes:.0f}",
            f"{row.clear_rate_low:.0%} to {row.clear_rate_high:.0%}",
            f"{row.mean_x:,.0f}",
            f"{row.mean_return:.1f}",
            "best model" if row.is_best else "",
        )
        for row in run.evaluations.itertuples()
    )
    return _table(header, rows)


def _settings(runs: Sequence[RecordedRun]) -> str:
    """The settings: of one run all, with those that are not the default marked; of several runs
    those in which they differ."""
    default = Config().flat()
    values = [run.config.flat() for run in runs]
    rows = []
    for _, item in settings():
        own = [one[item.name] for one in values]
        if len(runs) > 1 and len(set(map(str, own))) == 1:
            continue
        marked = item.name not in _DECIDED
        cells = [
            f"<mark>{_text(v)}</mark>" if marked and v != default[item.name] else _text(v)
            for v in own
        ]
        rows.append((_text(flag_of(item.name)), *cells, _text(default[item.name])))
    if not rows:
        return "<p>None.</p>"
    names = [_text(run.name) for run in runs] if len(runs) > 1 else ["value"]
    return _table(("flag", *names, "default"), rows, is_html=True)


def _videos(paths: RunPaths, page: Path) -> Iterator[tuple[str, str]]:
    """The videos of the run, the newest best model's first. They lie beside the report and are
    not part of it."""
    folder = paths.output_dir / "videos"
    found = [
        file
        for file in sorted(folder.glob(f"{paths.run_name}_*"), reverse=True)
        if file.suffix in _VIDEO_SUFFIXES
    ]
    if not found:
        return
    start = page.resolve().parent
    figures = []
    for file in found:
        link = _text(quote(Path(os.path.relpath(file.resolve(), start)).as_posix()))
        figures.append(
            f'<figure><video controls preload="metadata" src="{link}" '
            f'aria-label="{_text(file.name)}"></video><figcaption>{_text(file.name)}</figcaption>'
            "</figure>"
        )
    yield ("Videos", f'<div class="videos">{"".join(figures)}</div>')


def _about(description: Description) -> Iterator[tuple[str, str]]:
    parents = description.lineage.parents
    if parents:
        header = ("iteration", "run", "clear rate", "mean x")
        rows = (
            (str(one.iteration), one.run_name, f"{one.clear_rate:.0%}", f"{one.mean_x:,.0f}")
            for one in parents
        )
        yield ("Models that it descends from", _table(header, rows))
    facts: dict[str, Any] = {
        "created": description.created,
        "commit": description.git_commit or "unknown",
        **description.versions,
        **description.hardware,
    }
    table = _table(("what", "value"), ((key, str(value)) for key, value in facts.items()))
    sessions = _table(
        ("started", "at env step", "command"),
        ((one.started, f"{one.env_steps:,}", one.command) for one in description.sessions),
    )
    yield ("Sessions", sessions)
    yield ("Machine and versions", table)


def _table(header: Sequence[str], rows: Any, is_html: bool = False) -> str:
    form = str if is_html else _text
    head = "".join(f'<th scope="col">{form(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{form(cell)}</td>" for cell in row) + "</tr>\n" for row in rows
    )
    return (
        '<div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _text(value: object) -> str:
    """As HTML shows it."""
    return escape(str(value))
