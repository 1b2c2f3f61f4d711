"""The pull-request report as Markdown: it fits, says what a reviewer needs first, and lets no foreign text through."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from holdfast.cli.output import human_bytes
from holdfast.report.markdown import code, name, plain, table, visible
from holdfast.report.pull_amounts import pair_texts, value_text
from holdfast.report.pull_markdown import MAX_BYTES, Picture, marker, render_pull_request
from holdfast.report.pull_request import PullRequest
from report_world import BASE, GATE, HEAD, State, facts, make_world
from worlds import World

GITHUBS_LIMIT = 65_536
HOSTILE = (
    "a|b",
    "a\\|b @octocat",
    "\\",
    "`x` ``y```",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "@octocat",
    "#123 GH-7 octo/repo#9",
    "-->",
    "<!-- holdfast-report -->",
    "</details></td>",
    "[click](https://evil.example)",
    "![p](//evil.example/p.png) www.evil.example",
    "&lt;b&gt; &#64;octocat",
    "two\nlines\r\n| and | a row |",
    "\u202egnp.exe",
    "$\\rm math$ **bold** _it_ ~~no~~",
    " ",
    "x" * 5000,
)
OWN_HTML = re.compile(
    r"<details><summary>[^<>]*</summary>\s*|</details>\s*|<!-- holdfast-report(: [\w./-]+)? -->\s*|</?code>"
)
PINGS = re.compile(r"@\w|#\d|GH-\d|://|www\.\w")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> PullRequest:
    return facts(make_world(tmp_path_factory.mktemp("pr")))


def rendered(found: PullRequest, **options: Any) -> str:
    return render_pull_request(found, size_text=human_bytes, **options)


def tokens_of(text: str) -> list[Token]:
    """The tokens of a text as a reader of GitHub's tables has them, inline ones in place of what holds them."""
    found = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").parse(text):
        found += token.children or [token]
    return found


def loose_text(tokens: list[Token]) -> str:
    """What the text shows and is no code, where GitHub pings nobody."""
    found, coded = [], False
    for token in tokens:
        if token.type == "html_inline" and token.content in ("<code>", "</code>"):
            coded = token.content == "<code>"
        elif token.type == "text" and not coded:
            found.append(token.content)
    return "\n".join(found)


def cells_of(text: str) -> list[list[str]]:
    """What the cells of all tables show, row by row."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and token.level == 4 + (rows == []):
            rows[-1].append("".join(child.content for child in token.children or [] if child.type != "html_inline"))
    return rows


def test_the_verdict_comes_first_then_metrics_then_the_rest(found: PullRequest) -> None:
    text = rendered(found)
    lines = text.splitlines()
    assert lines[0] == "<!-- holdfast-report -->"
    assert lines[2] == "## ✅ Gate: pass · `digits/classifier@v2` against `v1`"
    assert lines[4] == (
        "Metrics: 2 better, 3 changed; 1 class worse; 1 param changed; 1 version registered; 1 label moved; "
        f"5 files or folders of DVC's changed; {human_bytes(found.added.nbytes)} new."
    )
    headings = [line for line in lines if line.startswith("###")]
    assert headings == [
        "### Metrics",
        "### Classes",
        "### Registry",
        "### Params",
        "### Data and models",
        "### Storage",
    ]
    row = next(line for line in lines if line.startswith("| `accuracy`"))
    assert row.startswith(
        "| `accuracy` | 0.975 | 0.9833 | ▲ +0.008333 better | ≥ 0.8; at most 0.2 worse, by its interval | ✅ pass | "
    )
    assert "| `train.lr` | 0.01 | 0.02 |" in lines
    assert "| `digits/classifier` | current v1 → v2 |  |" in lines


def test_what_stands_in_the_way_is_said_at_the_top(tmp_path: Path) -> None:
    gate = {**GATE, "metrics": {"accuracy": {"direction": "max", "floor": 0.99}}}
    found = facts(make_world(tmp_path, base=replace(BASE, gate=gate), head=replace(HEAD, gate=gate)))
    lines = rendered(found).splitlines()
    assert lines[2].startswith("## ❌ Gate: fail")
    assert lines[6] == "- ❌ **fail** `metrics.accuracy.floor`: accuracy is 0.9833, below its floor of 0.99"


def test_the_key_goes_into_the_marker(found: PullRequest) -> None:
    assert rendered(found, key="ci/main").startswith("<!-- holdfast-report: ci/main -->\n")
    assert marker("ci/main") in rendered(found, key="ci/main")


def test_pictures_are_shown_from_a_url_and_else_named(found: PullRequest) -> None:
    shown = rendered(found, pictures=[Picture("Curves", "plots/curves.png", "https://example.org/a b/curves.png")])
    assert "![Curves](<https://example.org/a b/curves.png>)" in shown
    assert "Drawn: `plots/curves.png`." in rendered(found, pictures=[Picture("Curves", "plots/curves.png")])


def hostile_world(folder: Path) -> World:
    """A branch all of whose names, values and messages are hostile."""
    values = {text: number / 7 for number, text in enumerate(HOSTILE, start=1)}
    gate = {**GATE, "metrics": {text: {"direction": "max", "floor": 0.5} for text in HOSTILE if text.strip()}}
    head = State(
        value=2.0,
        wrong=dict(enumerate(HOSTILE[:17])),
        more={**values, "text": HOSTILE[5], "deep": {HOSTILE[4]: {HOSTILE[6]: 1}}},
        gate=gate,
        version=False,
    )
    world = make_world(folder, head=head)
    params = yaml.safe_load((world.root / "params.yaml").read_text())
    params["hostile"] = {text: text for text in HOSTILE}
    world.write("params.yaml", yaml.safe_dump(params))
    for text in ("a|b", "a\\|b @octocat", "`x`.pt", "<script>.pt", "@octocat #1.pt", "two\nlines.pt"):
        out = {"md5": world.store(text), "size": len(text), "hash": "md5", "path": text}
        world.write(f"data/{text}.dvc", yaml.safe_dump({"outs": [out]}))
    world.write("data/broken @octocat <b>.dvc", "outs: <script>@octocat")
    world.git("add", "--all")
    world.git("commit", "--quiet", "-m", "<script>alert(1)</script> | @octocat #1 `x` -->")
    return world


def test_no_foreign_text_gets_through(tmp_path: Path) -> None:
    found = facts(hostile_world(tmp_path))
    text = rendered(found)
    assert len(found.metrics) > len(HOSTILE)
    assert len(found.faults) == 1
    tokens = tokens_of(text)
    html = [token.content for token in tokens if token.type in ("html_block", "html_inline")]
    assert html
    assert not [content for content in html if not OWN_HTML.fullmatch(content)]
    assert sum(content.startswith("<!--") for content in html) == 1
    assert "".join(html).count("<details>") == "".join(html).count("</details>") > 0
    assert not [token for token in tokens if token.type in ("link_open", "image", "s_open", "em_open")]
    assert not PINGS.findall(loose_text(tokens))
    assert "\u202e" not in text
    assert "\r" not in text
    shown = {cell for row in cells_of(text) for cell in row}
    for hostile in HOSTILE[:17]:
        assert visible(hostile) in shown, hostile


def test_every_row_has_the_cells_of_its_header(tmp_path: Path) -> None:
    text = rendered(facts(hostile_world(tmp_path)))
    width = 0
    for line in text.splitlines():
        if line.startswith("| "):
            # a bar counts unless an odd number of backslashes is before it, as GitHub's reader has it
            cells = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) - 1
            width = width or cells
            assert cells == width, line
        else:
            width = 0


@pytest.mark.parametrize("text", HOSTILE[:17])
def test_a_name_shows_as_it_is_in_a_cell(text: str) -> None:
    assert cells_of(table(("a", "b"), [(name(text), "next")]))[1] == [visible(text), "next"]
    coded = [token.content for token in tokens_of(f"- {name(text)}") if token.type == "code_inline"]
    assert coded == [visible(text)] or name(text).startswith("<code>")
    loose = loose_text(tokens_of(plain(text)))
    assert loose.replace("\n", "").replace("\u200b", "") == visible(text).strip()
    assert not PINGS.search(loose)


def test_old_reports_names_are_as_safe() -> None:
    assert cells_of(f"| a | b |\n| --- | --- |\n| {code('models/a' + chr(92) + '|b.pt')} | next |\n")[1] == [
        "models/a\\|b.pt",
        "next",
    ]
    assert code("a|b") == "`a\\|b`"


@pytest.mark.parametrize("letter", ["a", "é", "🐍", "|", "<", "\\|", "`"])
def test_it_fits_whatever_there_is(found: PullRequest, letter: str) -> None:
    many = 1000
    long = letter * 300
    metric = found.metrics[0]
    flooded = replace(
        found,
        metrics=tuple(
            replace(
                metric,
                value=replace(metric.value, name=f"{number}{long}", file=f"{long}.json", base=0.1, head=0.2 + number),
            )
            for number in range(many)
        ),
        params=tuple(
            replace(found.params[0], name=f"{number}{long}", base=long, head=f"{number}{long}")
            for number in range(many)
        ),
        outs=tuple(replace(found.outs[0], path=f"{number}{long}", verdict=long) for number in range(many)),
        let_go=tuple(replace(found.let_go[0], path=f"{number}{long}") for number in range(many)),
        classes=tuple(replace(found.classes[0], name=f"{number}{long}") for number in range(many)),
        confusion=tuple(
            replace(found.confusion[0], label=f"{number}{long}", prediction=long) for number in range(many)
        ),
        models=found.models * many,
        gate=replace(
            found.gate,
            findings=tuple(
                replace(found.gate.findings[0], rule=f"{number}{long}", reason=long, verdict="fail")
                for number in range(many)
            ),
            outcome="fail",
            stricter=tuple(replace(found.gate.findings[0], rule=long, reason=long) for _ in range(many)),
            rules_changed=True,
            recorded=(long,) * many,
            note=long,
            overridden=long,
            candidate=long,
            champion=long,
        ),
        faults=found.faults + tuple(replace_fault(number, long) for number in range(many)),
        head=replace(found.head, subject=long, name=long),
    )
    text = rendered(flooded)
    assert len(text.encode()) <= MAX_BYTES < GITHUBS_LIMIT
    assert text.splitlines()[2].startswith("## ❌ Gate: fail")
    assert re.search(r"9\d\d rows more: `dvc metrics diff [0-9a-f]{12} [0-9a-f]{12}`", text)
    # what a reviewer decides by is cut last
    assert len(re.findall(r"^### Metrics\n\n(?:.*\n\n)?((?:\|.*\n)+)", text, re.MULTILINE)[0].splitlines()) >= 4


def replace_fault(number: int, long: str) -> Any:
    from holdfast.report.pull_sides import Fault

    return Fault("head", f"{number}{long}", long)


def test_a_report_that_fits_loses_nothing(found: PullRequest) -> None:
    text = rendered(found)
    assert " rows more" not in text
    assert "left out" not in text
    assert text == rendered(found, most_bytes=len(text.encode()))
    short = rendered(found, most_bytes=len(text.encode()) - 1)
    assert short != text
    assert "rows more: `holdfast report pr --json`" in short


def test_the_same_commits_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make_world(tmp_path / name) for name in ("one", "two"))
    texts = []
    for world in (first, second):
        text = rendered(facts(world))
        for revision in ("main", "feature"):
            text = text.replace(world.git("rev-parse", revision)[:12], revision).replace(
                world.git("rev-parse", revision)[:8], revision
            )
        texts.append(text)
    assert (
        texts[0]
        == texts[1]
        == rendered(facts(second))
        .replace(second.git("rev-parse", "main")[:12], "main")
        .replace(second.git("rev-parse", "main")[:8], "main")
        .replace(second.git("rev-parse", "feature")[:12], "feature")
        .replace(second.git("rev-parse", "feature")[:8], "feature")
    )
    assert str(tmp_path) not in texts[0]


@pytest.mark.parametrize(
    ("base", "head", "texts"),
    [
        (0.98888, 0.98889, ("0.98888", "0.98889")),
        (0.5, 0.5, ("0.5", "0.5")),
        (60000.0, 60001.5, ("60000", "60002")),
        (1234567.0, 0.25, ("1234567", "0.25")),
        (float("nan"), 0.1, ("NaN", "0.1")),
        (float("inf"), 0.1, ("inf", "0.1")),
        (10**400, 0.1, (name(str(10**400), 60), "0.1")),
        (3, 4, ("3", "4")),
        (None, True, ("–", "true")),
        ("a|b", None, ("`a|b`", "–")),
        (-0.0, 0.0, ("0", "0")),
        (1e-12, 2e-12, ("1e-12", "2e-12")),
    ],
)
def test_numbers(base: Any, head: Any, texts: tuple[str, str]) -> None:
    assert pair_texts(base, head) == texts


def test_a_value_is_text_or_a_number() -> None:
    assert (
        json.dumps([value_text(value) for value in (1, 1.5, "x", False, None)])
        == '["1", "1.5", "`x`", "false", "\\u2013"]'
    )
