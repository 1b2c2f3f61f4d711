"""The documentation: its links lead somewhere, its code runs, its commands exist, its site is whole."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pygments.lexers import get_lexer_by_name

import holdfast
from holdfast import data, errors, runs
from holdfast.cli.main import INTERRUPTED, root
from holdfast.runs.validate import validate_run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"
PAGES = sorted([*PROJECT.glob("*.md"), *DOCS.rglob("*.md")], key=lambda page: page.relative_to(PROJECT).as_posix())
FENCED = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<kind>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\]\(([^)]+)\)")


@dataclass(frozen=True)
class Block:
    page: Path
    kind: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}: {self.code[:60]}"


def blocks_of(page: Path) -> Iterator[Block]:
    for found in FENCED.finditer(page.read_text()):
        yield Block(page, found["kind"], textwrap.dedent(found["code"]))


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(kind: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind == kind]


def prose(page: Path) -> str:
    """The page without its blocks and the code in its lines."""
    return re.sub(r"(`+)[^`\n].*?\1", "", FENCED.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("python")}), ids=lambda page: page.name)
def test_python_examples_run(tmp_path: Path, page: Path) -> None:
    """All of a page's examples, one after the other: a later one may use what an earlier one made."""
    code = "\n".join(block.code for block in blocks("python") if block.page == page)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_run_of_the_how_to_is_valid(tmp_path: Path) -> None:
    page = DOCS / "how-to" / "record-a-run.md"
    code = next(block.code for block in blocks("python") if block.page == page)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)

    (folder,) = (tmp_path / "outputs").iterdir()
    assert validate_run(folder).faults == ()


READERS = {"yaml": yaml.safe_load, "json": json.loads, "toml": tomllib.loads}


@pytest.mark.parametrize("kind", READERS)
def test_examples_of_files_are_whole(kind: str) -> None:
    for block in blocks(kind):
        try:
            content = READERS[kind](block.code)
        except ValueError as error:
            raise AssertionError(f"{block}: {error}") from error
        assert content, str(block)


def test_blocks_say_what_they_are() -> None:
    """A word that nobody knows would leave a block without colours, and out of these tests."""
    for block in BLOCKS:
        assert not block.kind or get_lexer_by_name(block.kind), str(block)
    for page in PAGES:
        assert "```" not in FENCED.sub("", page.read_text()), f"{page}: a block has no end"


def commands() -> Iterator[tuple[Block, str]]:
    """The lines after a prompt that call Holdfast, with those that they go on in."""
    for block in blocks("console"):
        lines = block.code.replace("\\\n", " ")
        lines = re.sub(r"^\$ .*\n.*\n\$ echo \$\?\n2$", "", lines, flags=re.MULTILINE)  # wrong on purpose
        for line in lines.splitlines():
            if line.startswith("$ "):
                for part in re.split(r" (?:&&|\|\|?|;) ", line.removeprefix("$ ")):
                    if part.strip().startswith("holdfast "):
                        yield block, part.strip()


def test_commands_in_the_docs_exist() -> None:
    found = 0
    for block, line in commands():
        command: click.Command = root
        words = shlex.split(line, comments=True)[1:]
        context = click.Context(root, info_name="holdfast")
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            child = command.get_command(context, words.pop(0))
            assert child is not None, f"{block.page}: {line}"
            command, context = child, click.Context(child, parent=context)
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        options |= set(context.help_option_names) | {"-h", "--help", "-v", "--verbose"}
        for word in words:
            if word == "--":
                break
            name = word.split("=")[0]
            assert not re.match(r"--?[a-zA-Z]", word) or name in options or word[:2] in options, f"{block.page}: {line}"
        found += 1
    assert found > 100


def test_what_no_reader_must_see() -> None:
    """Neither this machine's folders nor what is to be written still."""
    for page in PAGES:
        text = page.read_text()
        for word in (f"{PROJECT}/", f"{Path.home()}/", "TODO:", "FIXME", "XXX"):
            assert word not in text, f"{page}: {word}"


# exit codes, words


def test_exit_codes_are_those_of_the_errors() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_code for kind in classes if issubclass(kind, errors.HoldfastError)}
    rows = re.compile(r"^\| (\d+) \| ([^|]+) \|", re.MULTILINE)
    told = {
        page.name: {int(code): meaning.strip() for code, meaning in rows.findall(page.read_text())}
        for page in (DOCS / "reference" / "exit-codes.md", DOCS / "reference" / "cli.md")
    }
    assert told["exit-codes.md"].keys() == told["cli.md"].keys() == raised | {0, INTERRUPTED}
    epilog = dict(re.findall(r"(\d+) ([a-z ]+)[,.]", root.epilog or ""))
    assert {int(code) for code in epilog} == told["cli.md"].keys()
    for code, meaning in told["exit-codes.md"].items():
        # one word of the short form is in the long ones
        short = set(epilog[str(code)].split())
        assert short & set(re.findall("[a-z]+", meaning)), f"{code}: {meaning}"
        assert short & set(re.findall("[a-z]+", told["cli.md"][code])), f"{code}: {told['cli.md'][code]}"


def test_each_code_that_is_shown_is_in_the_table() -> None:
    page = (DOCS / "reference" / "exit-codes.md").read_text()
    shown = {int(code) for code in re.findall(r"^\$ echo \$\?\n(\d+)$", page, re.MULTILINE)}
    assert shown == {0, 1, 2, 10, 12, 13, 14}


def test_words_are_in_order_and_come_once() -> None:
    parts = re.split(r"^## ", (DOCS / "glossary.md").read_text(), flags=re.MULTILINE)
    found = [re.findall(r"^\| \*([^*]+)\* \|", part, re.MULTILINE) for part in parts]
    assert found[0] == sorted(found[0], key=str.lower)
    words = [word for part in found for line in part for word in line.split(", ")]
    assert [word for word, times in Counter(words).items() if times > 1] == []
    assert len(words) > 50


# the site


class Loader(yaml.SafeLoader):
    """YAML with mkdocs' own tags, whose values nothing here asks for."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def nav_pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        yield from nav_pages(inner)


def test_each_page_is_in_the_navigation_once() -> None:
    nav = yaml.load((PROJECT / "mkdocs.yml").read_text(), Loader)["nav"]
    named = Counter(nav_pages(nav))
    assert [page for page, times in named.items() if times > 1] == []
    outside = {"changes.md", "contributing.md"}  # the repository's, put in by docs/hooks.py
    assert set(named) - outside == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {
        page.relative_to(DOCS).as_posix() for page in (DOCS / "tutorial" / "messy").rglob("*.md")
    }


def test_the_front_page_leads_to_each_page() -> None:
    linked = set(LINK.findall((DOCS / "index.md").read_text()))
    told = {page.relative_to(DOCS).as_posix() for page in PAGES if DOCS in page.parents and "messy" not in page.parts}
    others = {page for page in told if page.startswith("adr/") and not page.startswith("adr/0001")}
    assert told - others - {"index.md"} <= linked


class Html(HTMLParser):
    """What a page loads, the ids in it, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self.titles: set[str] = set()
        self._quiet = 0
        self._title: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.ids.add(given.get("id", ""))
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev"):
            return
        self.loads += [given[name] for name in ("src", "srcset", "data", "poster") if name in given]
        self.loads += [given["href"]] if tag == "link" else []
        self._quiet += tag in ("script", "style", "pre", "code")
        self._title = "" if re.fullmatch("h[1-6]", tag) else self._title

    def handle_endtag(self, tag: str) -> None:
        self._quiet -= tag in ("script", "style", "pre", "code")
        if re.fullmatch("h[1-6]", tag) and self._title is not None:
            self.titles.add(self._title.removesuffix("¶").strip())
            self._title = None

    def handle_data(self, text: str) -> None:
        self.text += text if not self._quiet else ""
        self._title = None if self._title is None else self._title + text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every doubt an error."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("docs") / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=PROJECT, capture_output=True, text=True, check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},  # an announcement of the theme's authors
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


@pytest.fixture(scope="module")
def html(site: Path) -> dict[str, Html]:
    return {page.relative_to(site).as_posix(): Html(page.read_text()) for page in site.rglob("*.html")}


def test_the_site_has_each_page_and_its_text(site: Path, html: dict[str, Html]) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    indexed = {entry["location"].partition("#")[0] for entry in index["docs"]}
    for page in PAGES:
        if DOCS not in page.parents or "messy" in page.parts:
            continue
        name = page.relative_to(DOCS).with_suffix(".html").as_posix()
        assert name in html
        assert name in indexed, name
        for title in re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE):
            assert title.replace("`", "") in html[name].titles, f"{name}: {title}"


def test_the_site_asks_no_other_server(site: Path, html: dict[str, Html]) -> None:
    asked = {load for page in html.values() for load in page.loads if re.match(r"(?:\w+:)?//", load)}
    assert asked == set()
    for sheet in [*site.rglob("*.css")]:
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", sheet.read_text()), sheet.name
    assert not (site / "outputs.py").exists()
    assert not (site / "tutorial" / "messy").exists()


def test_markdown_is_read_as_it_is_meant(html: dict[str, Html]) -> None:
    """What Python-Markdown takes for text where others see a block, a table or a list."""
    for name, page in html.items():
        assert "```" not in page.text, name
        assert not re.search(r"\| ?-{2,}|\|---", page.text), name
        assert "](" not in page.text, name


def test_the_python_page_has_all_that_is_offered(html: dict[str, Html]) -> None:
    ids = html["reference/python.html"].ids
    shown = {name.rpartition(".")[2] for name in ids if name.startswith("holdfast.")}
    classes = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert {*runs.__all__, *data.__all__, *holdfast.__all__} - {"__version__"} <= shown
    assert {name for name in classes if name.endswith("Error")} <= shown


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_site_is_read_and_searched_as_files(site: Path) -> None:
    """Without a server: no request leaves the folder, the search finds, and what is there can be made out."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    asked: list[str] = []
    faults: list[tuple[str, str]] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            said: list[str] = []  # axe asks for style sheets again, which files do not give: that is none of the site's
            context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
            page = context.new_page()
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on(
                "console", lambda message, said=said: said.append(message.text) if message.type == "error" else None
            )
            page.goto((site / "index.html").as_uri())
            page.locator(".md-search__input").click()
            page.keyboard.type("quarantine")
            page.locator(".md-search-result__item").first.wait_for()
            page.locator(".md-search-result__link", has_text="Quarantine").first.click()
            page.wait_for_url("**/*.html*")
            assert "quarantine" in page.content().lower()
            assert said == []
            for name in ("index.html", "how-to/keep-it-clean.html"):
                page.goto((site / name).as_uri())
                for fault in axe.Axe().run(page).response["violations"]:
                    if fault["impact"] in ("serious", "critical"):
                        faults += [(f"{scheme} {name}: {fault['id']}", node["html"]) for node in fault["nodes"]]
            context.close()
        phone = browser.new_page(viewport={"width": 400, "height": 900})
        for name in ("index.html", "tutorial/from-a-messy-repository.html", "reference/files.html"):
            phone.goto((site / name).as_uri())
            assert phone.evaluate("document.documentElement.scrollWidth") <= 400, name
        browser.close()
    assert faults == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "about:", "blob:"))] == []
    assert any(url.endswith("search_index.js") for url in asked)
