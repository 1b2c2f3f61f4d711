"""The page of `holdfast report html` in a browser: what its readers do with it, by mouse and by keyboard."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import html_world
from worlds import TOOLS, World, environment

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
LINE = re.compile(r"(http://127\.0\.0\.1:\d+/)")
WAIT_MS = 30_000
Opened = Any  # Playwright's page, whose package the type checker need not have

# what grows as the reader scrolls is looked at all at once
DRAW_ALL = "async () => { for (const id of Object.keys(Holdfast.charts)) if (document.getElementById(id)) "
DRAW_ALL += "{ document.getElementById(id).dataset.drawn = 'yes'; await Holdfast.redraw(id); } }"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright  # only where there is a browser

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> html_world.HtmlWorld:
    return html_world.make_world(tmp_path_factory.mktemp("rich"), versions=40, experiments=60, runs=9)


@pytest.fixture(scope="module")
def file(rich: html_world.HtmlWorld) -> str:
    target = rich.world.home / "report.html"
    rich.world.holdfast("report", "html", "--date", "2026-12-31", "-o", str(target))
    return target.as_uri()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with a little of everything."""
    world = html_world.make_world(tmp_path_factory.mktemp("small"), versions=12, experiments=8, runs=4).world
    target = world.home / "report.html"
    world.holdfast("report", "html", "--date", "2026-12-31", "-o", str(target))
    return target.as_uri()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens pages, and sees in the end that none complained or asked for anything but itself."""
    contexts, faults = [], []

    def go(url: str, *, scheme: str = "light", width: int = 1280) -> Opened:
        context = browser.new_context(
            reduced_motion="reduce", color_scheme=scheme, viewport={"width": width, "height": 900}
        )
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda request: faults.append(request.url) if not request.url.startswith((url, "data:")) else None,
        )
        page.goto(url)
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


def rows_of(page: Opened, table: str = "#exp-table") -> list[list[str]]:
    return page.eval_on_selector_all(
        f"{table} tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )


def numbers_of(page: Opened, place: int, table: str = "#exp-table") -> list[float]:
    return [float(row[place].split()[0]) for row in rows_of(page, table)]


def count_of(page: Opened) -> str:
    return str(page.inner_text("#exp-count"))


def test_the_first_click_is_answered(browser: Any, tmp_path: Path) -> None:
    """On 500 experiments and 200 versions, as soon as the page is there; benchmarks/report_speed.py says how soon."""
    world = html_world.make_world(tmp_path, experiments=500).world
    target = world.home / "report.html"
    world.holdfast("report", "html", "-o", str(target))
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(target.as_uri())
    way = page.evaluate(
        """() => {
            document.querySelector('#exp-table th[data-key="accuracy"] button').click();
            return document.querySelector('#exp-table th[data-key="accuracy"]').getAttribute('aria-sort');
        }"""
    )
    context.close()
    assert way == "descending"


def test_headers_sort_by_click_and_by_key(visit: Callable[..., Opened], file: str) -> None:
    page = visit(file)
    head = page.locator('#exp-table th[data-key="loss"]')
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"  # less is better
    losses = numbers_of(page, 2)
    assert len(losses) == 62
    assert losses == sorted(losses)
    page.keyboard.press("Enter")  # the header kept the focus
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers_of(page, 2) == sorted(losses, reverse=True)
    page.locator('#exp-table th[data-key="experiment"] button').focus()
    page.keyboard.press("Space")
    names = [row[0] for row in rows_of(page)]
    assert names[1:4] == ["exp-000", "exp-001", "exp-002"]  # the first is a baseline, which is its commit


def test_differences_to_the_baseline_say_what_is_better(
    visit: Callable[..., Opened], file: str, rich: html_world.HtmlWorld
) -> None:
    page = visit(file)
    shown = page.eval_on_selector_all(
        "#exp-table tbody tr",
        "rows => rows.map(row => [row.cells[0].innerText, row.cells[1], row.cells[2]]).map(([name, ...cells]) => "
        "[name, ...cells.map(cell => cell.querySelector('.delta')).map(delta => [delta?.className, delta?.innerText])])",
    )
    told = {name.strip(): cells for name, *cells in shown}
    rows = page.evaluate(
        "Holdfast.facts.experiments.rows.filter(row => !row.baseline).map(row => [row.commit, row.cells])"
    )
    bases = {commit: cells[:2] for commit, cells in rows}
    seen = set()
    for one in rich.experiments:
        for found, base, higher, (name, text) in zip(
            (one.accuracy, one.loss), bases[one.baseline[:8]], (True, False), told[one.name], strict=True
        ):
            word = "better" if (found > base) == higher else "worse"
            assert name == f"delta {word}"
            assert text.split()[0] == ("▲" if found > base else "▼")
            assert float(text.split()[1]) == pytest.approx(abs(found - base), abs=6e-5)
            assert text.split()[2] == word  # for who does not see colours
            seen.add((word, higher))
    assert len(seen) == 4


def test_filters_work_together(visit: Callable[..., Opened], file: str, rich: html_world.HtmlWorld) -> None:
    page = visit(file)
    assert count_of(page) == "60 experiments"
    page.fill("#exp-text", "exp-01")
    assert count_of(page) == "10 of 60 experiments"
    page.fill("#exp-text", "")
    page.click("#exp-ranges-menu summary")
    page.get_by_label("Least accuracy").fill("0.86")
    page.get_by_label("Most loss").fill("0.16")
    page.get_by_label("Most loss").press("Tab")
    wanted = {one.name for one in rich.experiments if one.accuracy >= 0.86 and one.loss <= 0.16}
    assert 0 < len(wanted) < 60
    assert {row[0] for row in rows_of(page) if row[0].startswith("exp-")} == wanted
    assert count_of(page) == f"{len(wanted)} of 60 experiments"
    page.keyboard.press("Escape")
    assert not page.locator("#exp-ranges-menu").evaluate("menu => menu.open")
    page.get_by_role("button", name="Remove the filter loss ≤ 0.16").click()
    both, wanted = wanted, {one.name for one in rich.experiments if one.accuracy >= 0.86}
    assert len(both) < len(wanted) < 60
    assert count_of(page) == f"{len(wanted)} of 60 experiments"
    page.click("#exp-clear")
    assert count_of(page) == "60 experiments"


def test_columns_are_chosen(visit: Callable[..., Opened], file: str) -> None:
    page = visit(file)
    assert page.locator('#exp-table th[data-key="train.schedule"]').count() == 0
    page.click("#exp-columns-menu summary")
    page.get_by_role("checkbox", name="train.schedule").check()
    assert page.locator('#exp-table th[data-key="train.schedule"]').count() == 1
    page.get_by_role("checkbox", name="seconds").uncheck()
    assert page.locator('#exp-table th[data-key="seconds"]').count() == 0


def test_dragging_in_a_chart_filters_table_and_charts(
    visit: Callable[..., Opened], file: str, rich: html_world.HtmlWorld
) -> None:
    page = visit(file)
    page.locator("#scatter").scroll_into_view_if_needed()
    page.wait_for_selector("#scatter svg")
    page.wait_for_selector("#parallel svg")
    box = page.locator("#scatter svg").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 25)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.4, steps=4)
    page.mouse.up()
    chips = page.locator("#exp-chips li").all_inner_texts()
    assert len(chips) == 2
    ranges = page.evaluate("Holdfast.chosen.ranges")
    assert set(ranges) == {"train.lr", "accuracy"}
    wanted = {
        one.name
        for one in rich.experiments
        if ranges["train.lr"][0] <= one.lr <= ranges["train.lr"][1]
        and ranges["accuracy"][0] <= one.accuracy <= ranges["accuracy"][1]
    }
    assert 0 < len(wanted) < 60
    assert {row[0] for row in rows_of(page) if row[0].startswith("exp-")} == wanted
    on = page.evaluate("Holdfast.parallelRows(Holdfast.axes()).filter(row => row.on && row.step === 0).length")
    assert on == len(rows_of(page))
    page.click("#exp-clear")
    page.evaluate("window.scrollTo(0, 0)")
    page.locator("#parallel").scroll_into_view_if_needed()
    box = page.locator("#parallel svg").bounding_box()
    # over the last axis but two, accuracy: params come first, then metrics
    axes = page.evaluate("Holdfast.axes().map(axis => axis.name)")
    step = (box["width"] - 96) / (len(axes) - 1)
    x = box["x"] + 48 + axes.index("accuracy") * step
    page.mouse.move(x - 20, box["y"] + 70)
    page.mouse.down()
    page.mouse.move(x + 20, box["y"] + 130, steps=4)
    page.mouse.up()
    ranges = page.evaluate("Holdfast.chosen.ranges")
    assert set(ranges) == {"accuracy"}
    least, most = ranges["accuracy"]
    wanted = {one.name for one in rich.experiments if least <= one.accuracy <= most}
    assert 0 < len(wanted) < 60
    assert {row[0] for row in rows_of(page) if row[0].startswith("exp-")} == wanted


def test_a_row_is_marked_in_the_charts(visit: Callable[..., Opened], file: str) -> None:
    page = visit(file)
    page.locator("#parallel").scroll_into_view_if_needed()
    page.wait_for_selector("#parallel svg")
    button = page.get_by_role("button", name="exp-007", exact=True)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#exp-table tr.picked").count() == 1
    assert page.evaluate("Holdfast.scatterRows().filter(row => row.picked).length") == 1


def test_the_theme_is_chosen_and_remembered(visit: Callable[..., Opened], file: str) -> None:
    page = visit(file)
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.click("#theme")
    page.click("#theme")
    assert page.inner_text("#theme") == "Theme: dark"
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    assert page.evaluate(colour) == dark
    system = visit(file, scheme="dark")
    assert system.evaluate(colour) == dark
    for one in (page, system):  # paper is white, whatever was chosen
        one.emulate_media(media="print")
        assert one.evaluate(colour) == "rgb(255, 255, 255)"
        assert one.evaluate("getComputedStyle(document.body).color") == "rgb(22, 25, 29)"
        one.evaluate("dispatchEvent(new Event('beforeprint'))")
        one.wait_for_selector("#treemap svg", state="attached")  # nobody has scrolled there
        one.evaluate("dispatchEvent(new Event('afterprint'))")
        one.emulate_media(media="screen")
        assert one.evaluate(colour) == dark
    system.click("#theme")  # light, whatever the system says
    assert system.evaluate(colour) == light


def test_a_version_shows_where_it_comes_from(visit: Callable[..., Opened], file: str) -> None:
    page = visit(file)
    page.select_option("#model", "speech/tagger")
    assert "12 versions" in page.inner_text("#versions-count")
    page.select_option("#model", "digits/classifier")
    page.get_by_role("button", name="v21: where it comes from").click()
    panel = page.locator("#lineage")
    assert panel.locator("h3").inner_text() == "Lineage of digits/classifier@v21"
    assert page.evaluate("document.activeElement.textContent") == "Lineage of digits/classifier@v21"
    steps = panel.locator("li").all_inner_texts()
    assert steps[0].startswith("Data: raw/digits.csv (4.2 MB")
    assert "prepare → train → promote" in steps[1]
    assert steps[5] == "Labels: production"
    shapes = panel.locator("svg g").all_inner_texts()
    assert len(shapes) == 1 + 1 + 3 + 1 + 1
    panel.get_by_role("button", name="Close").click()
    assert panel.is_hidden()
    assert page.evaluate("document.activeElement.textContent") == "v21"


def test_the_keyboard_reaches_all_of_it(visit: Callable[..., Opened], file: str) -> None:
    page = visit(file)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or page.evaluate("document.activeElement.tagName") in ("SELECT", "INPUT")
    assert {"model", "progress-metric", "versions"} <= seen


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)])
def test_axe_finds_nothing_serious(visit: Callable[..., Opened], small: str, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe  # only where there is a browser

    page = visit(small, scheme=scheme, width=width)
    page.evaluate(DRAW_ALL)
    page.get_by_role("button", name=": where it comes from").first.click()
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    found = Axe().run(page).response["violations"]
    bad = [
        (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert bad == []
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0, "the page itself scrolls sideways"


def test_hostile_names_run_nothing(visit: Callable[..., Opened], tmp_path: Path) -> None:
    world = html_world.make_world(tmp_path, versions=8, experiments=6, runs=3, hostile=True).world
    target = world.home / "report.html"
    world.holdfast("report", "html", "--date", "2026-12-31", "-o", str(target))
    page = visit(target.as_uri())
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.evaluate(DRAW_ALL)
    assert "<script>alert(1)</script>" in page.inner_text("#model-facts")
    assert "<b>exp-000" in [row[0] for row in rows_of(page)]
    assert page.locator("b, img").count() == 0
    page.locator("#timeline svg .mark-rect path").last.hover(force=True)
    assert page.locator("#tip").text_content()
    assert page.locator("#tip *").count() == 0


@contextmanager
def served(world: World) -> Iterator[str]:
    """`holdfast ui` at work."""
    command = [str(TOOLS / "holdfast"), "ui", "--no-browser"]
    process = subprocess.Popen(command, cwd=world.root, env=environment(world.home), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = LINE.search(process.stdout.readline())
        assert found is not None
        yield found[1]
    finally:
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()


def test_the_live_page_follows_the_repository(visit: Callable[..., Opened], tmp_path: Path) -> None:
    small = html_world.make_world(tmp_path, versions=8, experiments=12, runs=3)
    from playwright.sync_api import expect  # see `browser`

    with served(small.world) as url:
        pages = visit(url), visit(url)
        for page in pages:
            expect(page.locator("#live")).to_have_text("Live: the page follows the repository.", timeout=WAIT_MS)
        page, other = pages
        page.fill("#exp-text", "exp-0")
        page.locator('#exp-table th[data-key="accuracy"] button').click()
        page.evaluate("window.scrollTo(0, 400)")
        base = small.world.git("rev-parse", "HEAD")
        commit = small.experiments[0].commit
        small.world.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/exp-099", commit)
        copied = (small.root / "models/digits_best.safetensors").read_bytes()
        small.world.write("models/new_best.safetensors", copied)
        for page in pages:
            expect(page.locator("#exp-count")).to_have_text("13 experiments", timeout=WAIT_MS)
            expect(page.locator("#storage")).to_contain_text("new_best", timeout=WAIT_MS)
        page = pages[0]
        assert page.input_value("#exp-text") == "exp-0"
        assert page.locator('#exp-table th[data-key="accuracy"]').get_attribute("aria-sort") == "descending"
        assert page.evaluate("window.scrollY") == 400
        assert "exp-099" in [row[0] for row in rows_of(page)]
        assert other.input_value("#exp-text") == ""
        # a tab that nobody sees asks for nothing, and is brought up to date when it is looked at again
        see = "state => { Object.defineProperty(document, 'visibilityState', { value: state, configurable: true }); "
        see += "document.dispatchEvent(new Event('visibilitychange')); }"
        other.evaluate(see, "hidden")
        small.world.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/exp-098", commit)
        expect(page.locator("#exp-count")).to_have_text("14 experiments", timeout=WAIT_MS)
        assert count_of(other) == "13 experiments"
        other.evaluate(see, "visible")
        expect(other.locator("#exp-count")).to_have_text("14 experiments", timeout=WAIT_MS)
