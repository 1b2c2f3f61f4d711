"""`holdfast report html`: what the page says is what git, DVC's files and the registry say."""

import base64
import csv
import hashlib
import itertools
import json
import os
import pty
import random
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import html_world
from holdfast.registry.history import RegistryHistory
from holdfast.repo.workspace import find_project
from holdfast.report.html import embedded, size_text
from holdfast.report.html_runs import thin
from worlds import TOOLS, World, environment

DAY = "2026-12-31"
PARTS = ("models", "experiments", "runs", "storage", "plan")


class Page(HTMLParser):
    """A page as a browser takes it apart: its elements, and what is in its scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.text = path.read_text()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[tuple[str, dict[str, str | None], str]] = []
        self.words: dict[str, list[str]] = {}
        self._open: list[str] = []
        self._section = ""
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.blocks.append((tag, dict(attrs), ""))
        self._open = [tag] if tag in ("script", "style") else []
        if tag == "section":
            self._section = dict(attrs).get("id") or ""

    def handle_endtag(self, tag: str) -> None:
        self._open = []
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, attributes, before = self.blocks[-1]
            self.blocks[-1] = (tag, attributes, before + data)
        elif self._section and data.strip():
            self.words.setdefault(self._section, []).append(data.strip())

    @property
    def data(self) -> dict[str, Any]:
        found = [text for _, attributes, text in self.blocks if attributes.get("id") == "data"]
        assert len(found) == 1
        return json.loads(found[0])

    def says(self, section: str) -> str:
        return " ".join(" ".join(self.words.get(section, [])).split())

    def policy(self) -> dict[str, list[str]]:
        content = next(a["content"] for t, a in self.tags if a.get("http-equiv") == "Content-Security-Policy")
        return {part.split()[0]: part.split()[1:] for part in (content or "").split("; ")}


def report(world: World, name: str = "report.html", *arguments: str, code: int = 0) -> Page:
    target = world.home / name  # outside of the project, whose files the page tells of
    world.holdfast("report", "html", "--date", DAY, "-o", str(target), *arguments, code=code)
    return Page(target)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> html_world.HtmlWorld:
    return html_world.make_world(tmp_path_factory.mktemp("rich"))


@pytest.fixture(scope="module")
def page(rich: html_world.HtmlWorld) -> Page:
    return report(rich.world)


def columns(page: Page) -> list[str]:
    return [column["name"] for column in page.data["experiments"]["columns"]]


def test_each_experiment_has_the_values_of_its_commit(rich: html_world.HtmlWorld, page: Page) -> None:
    names = columns(page)
    rows = {row["name"]: dict(zip(names, row["cells"], strict=True)) | row for row in page.data["experiments"]["rows"]}
    assert len(rich.experiments) == 300
    for one in rich.experiments:
        row = rows[one.name]
        assert (row["accuracy"], row["loss"]) == (one.accuracy, one.loss)
        assert (row["train.lr"], row["train.width"]) == (one.lr, one.width)
        assert (row["commit"], row["baseline"]) == (one.commit[:8], one.baseline[:8])
    bases = [row for row in rows.values() if not row["baseline"]]
    assert sorted(row["commit"] for row in bases) == sorted({one.baseline[:8] for one in rich.experiments})
    assert page.data["experiments"]["rows"][0]["name"] == "main"


def test_the_columns_that_tell_experiments_apart_are_shown_first(page: Page) -> None:
    shown = [column["name"] for column in page.data["experiments"]["columns"] if column["shown"]]
    assert shown == ["accuracy", "loss", "seconds", "train.lr", "train.width"]
    better = {column["name"]: column["better"] for column in page.data["experiments"]["columns"]}
    assert better["accuracy"] == "max"
    assert better["loss"] == "min"
    assert better["train.lr"] is None


def test_labels_were_where_the_registry_says(rich: html_world.HtmlWorld, page: Page) -> None:
    history = RegistryHistory(find_project(rich.root))
    chance = random.Random(3)
    seen = 0
    for place in chance.sample(range(200 * 24), 12):
        when = datetime.fromtimestamp(html_world.START, timezone.utc) + timedelta(hours=place)
        moment = history.at(when)
        truth = sorted(
            (model.id, label, name)
            for model in (moment.models if moment else ())
            for label, name in {"current": model.current, **model.aliases}.items()
        )
        told = sorted(
            (model["id"], span["label"], span["version"])
            for model in page.data["models"]
            for span in model["spans"]
            if span["start"] <= f"{when:%Y-%m-%dT%H:%M:%SZ}" and (span["end"] or "9") > f"{when:%Y-%m-%dT%H:%M:%SZ}"
        )
        assert told == truth
        seen += len(truth)
    assert seen > 50


def test_versions_have_what_their_files_say(rich: html_world.HtmlWorld, page: Page) -> None:
    models = {model["id"]: model for model in page.data["models"]}
    assert {name: len(model["versions"]) for name, model in models.items()} == rich.versions
    version = models["digits/classifier"]["versions"][-1]
    text = (rich.root / f"registry/digits/classifier/{version['name']}.yaml").read_text()
    for name, value in version["metrics"].items():
        assert float(re.search(rf"^  {name}: (.+)$", text, re.MULTILINE)[1]) == value
    assert version["commit"] == rich.commits[f"digits/classifier@{version['name']}"][:8]
    assert models["digits/classifier"]["champion"] == "v116"  # production, not current
    assert sorted(version["labels"]) == ["current", "staging"]


def test_a_version_comes_from_the_data_of_its_lock(page: Page) -> None:
    version = page.data["models"][0]["versions"][4]
    assert version["lineage"]["stages"] == ["prepare", "train", "promote"]
    oid = hashlib.md5(b"raw", usedforsecurity=False).hexdigest()[:8]
    assert version["lineage"]["data"] == [["raw/digits.csv", oid, 4_200_000]]  # neither code nor what a stage made


def test_curves_are_those_of_the_files(rich: html_world.HtmlWorld, page: Page) -> None:
    runs = {run["path"]: run for run in page.data["runs"]["runs"]}
    assert len(runs) == 24
    for path, run in runs.items():
        rows = list(csv.DictReader((rich.root / path / "metrics.csv").read_text().splitlines()))
        assert run["curves"]["val_accuracy"][0] == [int(row["epoch"]) for row in rows]
        assert run["curves"]["val_accuracy"][1] == [float(row["val_accuracy"]) for row in rows]


def test_storage_and_plan_are_what_lies_there(rich: html_world.HtmlWorld, page: Page) -> None:
    files = list((rich.root / "models").rglob("*.safetensors"))
    assert page.data["scan"]["bytes"] == sum(file.stat().st_size for file in files)
    assert sum(family["bytes"] for family in page.data["scan"]["families"]) == page.data["scan"]["bytes"]
    assert page.data["scan"]["twice"] == (rich.root / "models/digits_best.safetensors").stat().st_size
    objects = [path for path in (rich.root / ".dvc/cache").rglob("*") if path.is_file()]
    plan = page.data["plan"]
    assert (plan["going"], plan["frees"]) == (40, sum(path.stat().st_size for path in objects))
    assert plan["rows"][0]["size"] == max(path.stat().st_size for path in objects)
    assert "40 objects" in page.says("plan")


def test_the_vault_has_the_figures_of_its_command(tmp_path: Path) -> None:
    world = html_world.make_world(tmp_path, versions=0, experiments=0, runs=0).world
    oid = world.store("much the same " * 5000)
    world.write("data.txt.dvc", f"outs:\n- md5: {oid}\n  size: 70000\n  hash: md5\n  path: data.txt\n")
    world.write("holdfast.yaml", "vault:\n  url: ../vault\n")
    world.holdfast("vault", "init")
    world.holdfast("push", "data.txt.dvc")
    stats = json.loads(world.holdfast("vault", "stats", "--json").stdout)
    assert stats["stored_bytes"] < 70_000
    said = report(world).says("storage")
    assert f"1 file of 70.0 kB take {size_text(stats['stored_bytes'])} , {stats['ratio']:.2f} times less" in said


def test_the_same_repository_gives_the_same_bytes(rich: html_world.HtmlWorld, page: Page) -> None:
    assert report(rich.world, "again.html").text == page.text
    first, second = (rich.world.holdfast("report", "html").stdout for _ in range(2))  # without a date
    assert first == second
    newest = html_world.START + 202 * html_world.STEP + 299 * 60
    assert f"{datetime.fromtimestamp(newest, timezone.utc):%Y-%m-%dT%H:%M:%SZ}" in first


def test_five_hundred_experiments_fit(tmp_path: Path) -> None:
    world = html_world.make_world(tmp_path, experiments=500).world
    assert len(report(world).text.encode()) <= 3_000_000
    page = report(world)
    assert sum(bool(row["baseline"]) for row in page.data["experiments"]["rows"]) == 500


def test_the_page_needs_nothing_and_allows_nothing_else(page: Page) -> None:
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        assert tag not in ("iframe", "object", "embed", "form", "base")
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
        assert not any(name.startswith("on") for name in attributes)
        assert "style" not in attributes
    policy = page.policy()
    assert policy["default-src"] == ["'none'"]
    assert "connect-src" not in policy
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for _, _, text in page.blocks
    ]
    kinds = [(tag, attributes.get("id")) for tag, attributes, _ in page.blocks]
    assert kinds == [("style", None), ("script", "data"), ("script", None), ("script", None), ("script", None)]
    assert policy["style-src-elem"] == digests[:1]
    assert policy["script-src"] == digests[2:]  # no unsafe-inline, no unsafe-eval


def test_hostile_names_are_data(tmp_path: Path) -> None:
    hostile = html_world.make_world(tmp_path, versions=6, experiments=4, runs=2, hostile=True)
    page = report(hostile.world)
    kinds = [tag for tag, _, _ in page.blocks]
    assert kinds == ["style", "script", "script", "script", "script"]
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert page.data["models"][0]["description"] == html_world.HOSTILE
    assert html_world.HOSTILE in page.says("overview")  # the commit's subject, as text
    assert "<b>exp-000" in [row["name"] for row in page.data["experiments"]["rows"]]
    assert page.data["models"][0]["spans"][0]["subject"].endswith("\u202egnp.exe")


@given(
    st.recursive(
        st.text() | st.integers() | st.floats() | st.none(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=8,
    )
)
@settings(deadline=None, derandomize=True)
def test_embedded_values_come_back_and_cannot_end_their_block(values: Any) -> None:
    text = embedded(values)
    assert not set(text) & set("<>&\u2028\u2029")
    again = embedded(json.loads(text))
    assert again == text


def test_embedded_values_are_what_they_were() -> None:
    values = {"a": ["</script>", "&amp;", "\u2028", 'quote " \\', "שלום", 1.5, True, None], "nan": float("nan")}
    assert json.loads(embedded(values)) == {**values, "nan": None}


def test_an_empty_project_says_what_fills_it(tmp_path: Path) -> None:
    empty = html_world.make_world(tmp_path, versions=0, experiments=0, runs=0).world
    page = report(empty)
    wanted = {
        "models": "holdfast registry register", "experiments": "dvc exp run", "runs": "holdfast runs list",
        "storage": "holdfast scan", "plan": "holdfast gc plan",
    }  # fmt: skip
    for part, command in wanted.items():
        assert command in page.says(part), part
    assert page.data["models"] == []


def test_a_project_without_a_commit_has_a_page(tmp_path: Path) -> None:
    from worlds import make_home

    world = World(tmp_path / "project", make_home(tmp_path))
    world.root.mkdir()
    world.git("init", "--quiet")
    world.write(".dvc/config", "")
    page = report(world)
    assert "No commit yet" in page.says("overview")


def test_a_broken_model_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    world = html_world.make_world(tmp_path, versions=10, experiments=2, runs=0).world
    world.write("registry/digits/classifier/v2.yaml", "schema: 1\noid: [\n")
    target = world.home / "report.html"
    done = world.holdfast("report", "html", "-o", str(target), code=3)
    assert "digits/classifier/v2.yaml" in done.stderr
    page = Page(target)
    assert "digits/classifier/v2.yaml" in page.says("models")
    assert [model["id"] for model in page.data["models"]] == ["speech/tagger", "vision/segmenter"]
    assert page.data["models"][0]["spans"]
    assert len(page.data["experiments"]["rows"]) == 4
    assert page.data["scan"]["files"] == 0
    assert "digits/classifier/v2.yaml" in page.says("plan")  # what is registered is not known: nothing may go


def test_a_shallow_clone_says_so(tmp_path: Path) -> None:
    world = html_world.make_world(tmp_path, versions=3, experiments=0, runs=0).world
    clone = World(tmp_path / "clone", world.home)
    world.git("clone", "--quiet", "--depth", "1", f"file://{world.root}", str(clone.root))
    clone.write(".dvc/config", "")
    page = report(clone, code=3)
    for part in ("overview", "models", "experiments"):
        assert "fetch --unshallow" in page.says(part), part
    assert len(page.data["models"]) == 3  # their files are there, though their history is not


TEMPLATED = """\
vars:
  - names: [north, south]
stages:
  fit:
    foreach: ${names}
    do:
      cmd: python fit.py ${item}
      params: [rate, other.toml: [deep.key]]
      metrics:
        - scores/${item}.json:
            cache: false
metrics:
  - summary.yaml
"""


@pytest.fixture
def templated(tmp_path: Path) -> World:
    from worlds import make_home

    world = World(tmp_path / "project", make_home(tmp_path))
    world.root.mkdir()
    world.git("init", "--quiet")
    world.write(".dvc/config", "")
    world.write("area/dvc.yaml", TEMPLATED)
    world.write("area/fit.py", "")
    for number, (rate, score) in enumerate([(0.1, 0.5), (0.2, 0.75)]):
        world.write("area/params.yaml", f"rate: {rate}\nunused: 3\n")
        world.write("area/other.toml", f"[deep]\nkey = {number}\nleft_out = 1\n")
        world.write("area/scores/north.json", json.dumps({"f1": score, "by": {"cat": [1, 2]}}))
        world.write("area/scores/south.json", json.dumps({"f1": score / 2}))
        world.write("area/summary.yaml", f"mean: {score}\nworst: .nan\n")
        commit = world.commit(f"state {number}")
        if number:
            base = world.git("rev-parse", "HEAD~1")
            world.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/tried", commit)
            world.git("reset", "--quiet", "--hard", base)
    return world


def test_templates_folders_and_other_forms_are_read(templated: World) -> None:
    page = report(templated)
    names = columns(page)
    row = next(row for row in page.data["experiments"]["rows"] if row["name"] == "tried")
    cells = dict(zip(names, row["cells"], strict=True))
    assert cells["area/scores/north.json:f1"] == 0.75  # two files have an f1
    assert cells["area/scores/south.json:f1"] == 0.375
    assert (cells["mean"], cells["worst"], cells["by.cat"]) == (0.75, "nan", "[1, 2]")
    assert (cells["rate"], cells["deep.key"]) == (0.2, 1)
    assert "left_out" not in " ".join(names)  # only what the stage names


def test_dvc_says_the_same_of_experiments(tmp_path: Path) -> None:
    small = html_world.make_world(tmp_path, versions=3, experiments=6, runs=0)
    page = report(small.world)
    names = columns(page)
    told = {row["name"]: dict(zip(names, row["cells"], strict=True)) for row in page.data["experiments"]["rows"]}
    shown = json.loads(small.world.dvc("exp", "show", "--json", "-A"))
    found = 0
    for state in shown:
        for one in state.get("experiments") or []:
            for revision in one["revs"]:
                data = revision["data"]
                metrics = data["metrics"]["metrics/train.json"]["data"]
                params = data["params"]["params.yaml"]["data"]["train"]
                row = told[one["name"]]
                assert {name: row[name] for name in metrics} == metrics
                assert {name: row[f"train.{name}"] for name in params} == params
                found += 1
    assert found == 6


def test_a_long_curve_keeps_its_ends() -> None:
    points = [(float(x), float(x * x)) for x in range(1001)]
    kept = thin(points, 160)
    assert len(kept) == 160
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    steps = [b[0] - a[0] for a, b in itertools.pairwise(kept)]
    assert max(steps) - min(steps) <= 1
    assert thin(points[:5], 160) == points[:5]


@pytest.mark.parametrize("missing", ["jinja2", "vl_convert"])
def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path, missing: str) -> None:
    world = html_world.make_world(tmp_path, versions=0, experiments=0, runs=0).world
    script = (
        f"import sys; sys.modules[{missing!r}] = None; from holdfast.cli.main import main; main(['report', 'html'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=world.root,
        env=environment(world.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "pip install 'holdfast[report]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_terminal_is_told_to_name_a_file(tmp_path: Path) -> None:
    world = html_world.make_world(tmp_path, versions=0, experiments=0, runs=0).world
    master, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [str(TOOLS / "holdfast"), "report", "html"],
            cwd=world.root,
            env=environment(world.home),
            stdout=terminal,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(master)
    assert done.returncode == 2
    assert "-o report.html" in done.stderr


def test_help_needs_no_extra(tmp_path: Path) -> None:
    script = (
        "import sys; from holdfast.cli.main import _run; code = _run(['report', 'html', '--help']) + _run(['ui', '--help']);"
        "sys.exit(code or bool({'jinja2', 'vl_convert', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "report html -o report.html" in done.stdout
