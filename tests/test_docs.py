"""What the documents say, compared with what they speak of: flags, files, figures and links."""

import json
import re
import subprocess
import sys
from dataclasses import fields

import pytest
from scripts import ROOT, call

from docs import make_flags
from mario_rl.agent.saved_model import SavedModel
from mario_rl.config import Config
from mario_rl.storage.records import TABLES
from mario_rl.storage.tensor_file import SCHEMA

# Virtual environments and caches have names that begin with a dot.
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
)
FENCED = r"(?ms:^```.*?^```)"
# Code comes first, as what looks like a link in it is none.
LINK = re.compile(FENCED + r"|(?m:^ {4}.*$)|`[^`]*`|\]\(([^)\s]*)[^)]*\)")


def test_the_table_of_benchmarks_repeats_the_results():
    text = (ROOT / "docs" / "performance.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.split("\n## The benchmarks\n")[1].split("\n## ")[0].splitlines()
        if re.match(r"\| \d", line)
    ]
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    assert [[number, *figures] for number, _, *figures in rows] == [_cells(r) for r in results]


def _cells(result):
    """A result as the table shows it, without the description."""
    form = "{:.1%}" if result["name"] == "inference" else "{:.2f}"
    ratio, bar, low, high = map(form.format, (result["ratio"], result["bar"], *result["spread"]))
    holds = "holds" if result["holds"] else "**missed**"
    return [str(result["id"]), ratio, bar, holds, f"{low} .. {high}"]


def test_the_page_of_flags_is_made_from_the_config():
    # In a process of its own: other tests add parts to the registries.
    code = "from docs.make_flags import page; print(page(), end='')"
    command = [sys.executable, "-c", code]
    page = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert make_flags.PAGE.read_text() == page, "run: python -m docs.make_flags"
    assert make_flags.REASONS.keys() <= Config().flat().keys()


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("*.py")))
def test_every_flag_is_on_a_page(script, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # so that no flag is broken over two lines
    _, help, _ = call(script, ["--help"], tmp_path)
    documented = make_flags.PAGE.read_text() + (ROOT / "docs" / "commands.md").read_text()
    flags = set(re.findall(r"--[a-z][a-z-]*", help)) - {"--help"}
    assert {flag for flag in flags if f"`{flag}`" not in documented} == set()


@pytest.mark.parametrize(
    ("heading", "names"),
    [(table.file, list(table.columns)) for table in TABLES]
    + [("Models", [item.name for item in fields(SavedModel)])],
)
def test_the_page_of_files_lists_what_is_in_them(heading, names):
    text = (ROOT / "docs" / "files.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    assert re.findall(r"(?m)^\| `(\w+)` \|", section) == names


def test_the_page_of_files_tells_the_schema():
    text = (ROOT / "docs" / "files.md").read_text()
    assert f"have schema {SCHEMA}." in " ".join(text.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if link and ":" not in link]
    assert [link for link in links if not _leads_somewhere(page, link)] == []


def _leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", re.sub(FENCED, "", page.read_text()))
    texts = [re.sub(r"\]\([^)]*\)", "", heading).lower() for heading in headings]
    anchors = [re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts]
    repeated = [anchors[:i].count(anchor) for i, anchor in enumerate(anchors)]
    return [f"{a}-{n}" if n else a for a, n in zip(anchors, repeated, strict=True)]
