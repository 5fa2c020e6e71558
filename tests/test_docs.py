"""What the documents say, compared with what they speak of: measured figures and links."""

import json
import re

import pytest
from scripts import ROOT

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
