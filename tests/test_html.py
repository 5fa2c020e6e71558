"""The report for a browser, opened in one: headless Chromium, without a network."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from scripts import call
from test_plots import write_run

from mario_rl.agent.saved_model import SavedModel
from mario_rl.agent.shipped import model_file
from mario_rl.reports.server import server_of
from mario_rl.reports.stage_picture import stage_picture
from mario_rl.storage.files import read_json, write_json

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TITLES = [
    "Episode return", "Stage progression", "Evaluation: clear rate", "Loss", "Exploration",
    "Evaluation: furthest x", "Where games are lost",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the second iteration of a run, with the model of 1-1 and a video."""
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("html")
    paths = write_run(folder, "b", parents=("a",), gamma=0.9)
    paths.model.parent.mkdir()
    shutil.copy(model_file("1-1"), paths.model)
    (folder / "videos").mkdir()
    (folder / "videos" / "b_1-1.mp4").write_bytes(b"no video")
    description = read_json(paths.run_json)
    description["command"] = "<script>alert('x')</script>"
    description["sessions"] = [{"started": "now", "command": "<b>bold", "env_steps": 0}]
    write_json(paths.run_json, description)
    assert call("visualize_training.py", ["--run-name", "b", "--html"], folder)[::2] == (0, "")
    return paths.stats / "report.html"


def opened(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    """The page when its charts are drawn, and what it complains about or asks the network for."""
    context = browser.new_context(**options)
    context.set_offline(True)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith("http") and complaints.append(request.url),
    )
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    return page, complaints


def test_charts_are_drawn_and_say_their_values(browser: Any, report: Path) -> None:
    page, complaints = opened(browser, report)
    assert page.locator("article h2").all_inner_texts() == TITLES
    assert page.locator("article .main-svg").first.is_visible()
    assert page.locator(".plot > .plot-container").count() == len(TITLES)
    chart = page.locator("#plot2 .nsewdrag").first
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + box["height"] / 2)
    hover = page.locator("#plot2 .hoverlayer")
    hover.get_by_text("mean of the games").wait_for()
    assert "20.0% (10% to 60%)" in hover.text_content(), "2 of 10 games in the last evaluation"
    page.get_by_label("hours", exact=True).check()
    assert page.locator("#plot0 .xtitle").text_content() == "hours of training"
    assert page.locator("#plot6 .xtitle").text_content() == "furthest x (px)"
    box = page.locator("#plot3 .ytick").count()
    page.locator("#log3").uncheck()
    assert page.evaluate("document.getElementById('plot3').layout.yaxis.type") == "linear" and box
    assert not complaints


def test_stage_lies_behind_the_lost_games(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report)
    image = page.locator("#plot6 image")
    assert image.count() == 1 and image.get_attribute("href").startswith("data:image/png")
    assert page.locator("#plot6 .bars path").count() > 3


def test_phone_dark_mode_keyboard_and_alternative_texts(browser: Any, report: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    page, complaints = opened(browser, report, **phone)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", colour))) < 64
    texts = [plot.get_attribute("aria-label") for plot in page.locator("[role=img]").all()]
    assert [text.split(",")[0] for text in texts] == TITLES
    assert "best model: 1 points, the last 0.4" in texts[2]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("input[value=episodes]").is_checked()
    assert page.locator("#plot0 .xtitle").text_content() == "training episodes"
    assert not complaints


def test_tables_have_evaluations_settings_lineage_and_sessions(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report)
    assert "4 of 10" in page.locator("section", has_text="Evaluations").first.inner_text()
    assert page.locator("tr", has_text="--gamma").locator("mark").inner_text() == "0.9"
    assert "a" in page.locator("section", has_text="Models that it descends from").inner_text()
    assert page.get_by_text("<b>bold").count() == 1, "shown as it is"
    video = page.locator("video")
    assert video.get_attribute("src") == "../../videos/b_1-1.mp4"


def test_a_file_is_small(report: Path) -> None:
    assert report.stat().st_size < 5e6


def test_a_run_that_has_just_begun(browser: Any, tmp_path: Path) -> None:
    write_run(tmp_path, "new", episodes=0, clears=())
    assert call("visualize_training.py", ["--run-name", "new", "--html"], tmp_path)[0] == 0
    page, complaints = opened(browser, tmp_path / "stats" / "new" / "report.html")
    assert "no episodes yet" in page.locator("#plot0").inner_text()
    assert "no game was lost yet" in page.locator("#plot6").inner_text()
    assert not complaints


def test_a_damaged_model_costs_only_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    paths = write_run(tmp_path, "a")
    paths.model.parent.mkdir()
    paths.model.write_bytes(b"no model")
    code, output, errors = call("visualize_training.py", ["--run-name", "a", "--html"], tmp_path)
    assert (code, output) == (0, "stats/a/report.html\n")
    assert errors.count("\n") == 1 and "without the picture" in errors
    assert "data:image" not in (paths.stats / "report.html").read_text()


@pytest.mark.parametrize("group", [[], ["--group"]])
def test_runs_are_compared(browser: Any, tmp_path: Path, group: list[str]) -> None:
    pytest.importorskip("plotly")
    for seed, gamma in ((0, 0.9), (1, 0.9)):
        write_run(tmp_path, f"a{seed}", seed=seed, gamma=gamma, clears=(1, 2 + seed, 3))
    words = ["--run-names", "a0", "a1", "--html", *group]
    code, output, errors = call("compare_runs.py", words, tmp_path)
    assert (code, errors) == (0, "")
    page, complaints = opened(browser, tmp_path / output.splitlines()[-1])
    lines = json.loads(page.locator("#data").text_content())[2]["lines"]
    assert {line["name"] for line in lines} == ({"a (2 seeds)"} if group else {"a0", "a1"})
    assert page.locator("#plot2 .fills path").count() == (1 if group else 0), "the interval"
    assert "--seed" in page.locator("section", has_text="Settings that differ").inner_text()
    assert not complaints


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("plotly")
    with server_of(write_run(tmp_path, "live")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def answer_of(address: str, **options: Any) -> int:
    try:
        with urlopen(Request(address, **options)) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def test_server_answers_nobody_else(server: Any) -> None:
    address = server.address()
    assert server.server_address[0] == "127.0.0.1"
    assert answer_of(address) == answer_of(address + "news") == 200
    assert answer_of(address.replace(server.token, "x" * len(server.token))) == 404
    assert answer_of(address + "../") == answer_of(address + "../../etc/passwd") == 404
    assert answer_of(address, headers={"Host": "evil.example"}) == 404
    assert answer_of(address, data=b"x") == answer_of(address, method="DELETE") == 501


def test_page_follows_the_run(browser: Any, server: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(server.address())
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    assert "30 episodes" in page.locator("#summary").inner_text()
    page.locator("#log0").check()
    shutil.rmtree(tmp_path / "stats" / "live")
    page.evaluate("follow()")  # a file is gone: the page keeps what it has
    assert "30 episodes" in page.locator("#summary").inner_text()
    write_run(tmp_path, "live", episodes=40)
    page.evaluate("follow()")
    assert "40 episodes" in page.locator("#summary").inner_text()
    assert page.evaluate("document.getElementById('plot0').data[0].x.length") == 40
    assert page.locator("#log0").is_checked()


def test_without_plotly_one_line_names_the_command(tmp_path: Path) -> None:
    write_run(tmp_path, "a")
    code = "import sys; sys.modules['plotly'] = None; sys.argv[0] = 'visualize_training.py'\n"
    code += "import visualize_training; visualize_training.command()"
    flags = ["--run-name", "a", "--html", "--output-dir", str(tmp_path)]
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code, *flags]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "pip install plotly" in result.stderr


def test_picture_of_a_stage_is_what_the_screens_showed() -> None:
    picture = stage_picture(SavedModel.load(model_file("1-1")))
    assert picture.shape[0] == 208 and 3200 < picture.shape[1] < 3600
    sky = picture[20, 5]
    assert (picture[190:200] != sky).any(axis=2).mean() > 0.9, "the ground"
    pits = (picture[200] == picture[200, 1110]).all(axis=1)  # 1-1 has the first one there
    assert pits[1108:1132].all() and not pits[1000:1100].any()
    assert len(np.unique(picture[:, ::16], axis=1)) > 10
