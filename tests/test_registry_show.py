"""What `registry show` puts beside versions: which metrics, how they compare, what fits, what is remembered."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import sqlite3
import struct
import subprocess
import termios
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cli.output import Table, emit
from holdfast.cli.registry_columns import GateMetrics, MetricColumn, gate_metrics, metric_columns
from holdfast.cli.registry_stored import Added
from holdfast.cli.registry_tables import MANY_ROWS, emit_quickly
from holdfast.cli.registry_versions import VersionsView
from holdfast.registry.cache import RACY_NS, RegistryCache, fingerprint
from holdfast.registry.entries import Deprecation, Model, Version, summarize
from holdfast.registry.store import Registry
from holdfast.registry.table import tabulate
from holdfast.registry.writing import dump_model, dump_version
from registry_world import error_of, shown
from worlds import TOOLS, World, environment, make_repository

MODEL = "mental_health/medium"
DAY = date(2026, 11, 20)
NAN = float("nan")
GATE = """\
promote:
  metrics:
    test_loss: {direction: min, ceiling: 0.5}
    odd: {direction: min, required: true}
  classes:
    recall: {floor: 0.1}
"""


def draft(number: int, metrics: dict[str, Any], **changes: Any) -> Version:
    found = Version(
        f"v{number}",
        "models/medium.safetensors",
        f"{number:032x}",
        1000 * number,
        f"blake3:{number:064x}",
        f"2026-11-{number % 20 + 1:02}",
        {"rev": f"{number:040x}"},
        {"lr": 0.1},
        metrics,
    )
    return replace(found, **changes)


def write(root: Path, versions: list[Version], model: str = MODEL, settled: bool = True) -> None:
    """A registry as files, an hour old: what was written this moment is not remembered."""
    folder = root / "registry" / model
    folder.mkdir(parents=True, exist_ok=True)
    for version in versions:
        (folder / f"{version.name}.yaml").write_text(dump_version(version))
    (folder / "model.yaml").write_text(dump_model("Six conditions", versions[-1].name))
    hour = time.time() - 3600
    for path in folder.iterdir() if settled else ():
        os.utime(path, (hour, hour))


def many(count: int) -> list[Version]:
    """Versions with 25 metrics besides those of seven classes."""
    names = ["accuracy", "macro_f1", "odd", "test_loss", *(f"metric_{number}" for number in range(21))]
    classes = ["anxiety", "bipolar", "depression", "normal", "personality disorder", "stress", "suicidal"]
    result = []
    for number in range(1, count + 1):
        metrics: dict[str, Any] = {name: (number * 37 + place) % 100 / 101 for place, name in enumerate(names)}
        metrics["classes"] = {
            label: {"recall": (number * 31 + 7 * place) % 97 / 97, "f1": 0.5} for place, label in enumerate(classes)
        }
        result.append(draft(number, metrics))
    return result


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_repository(tmp_path)
    world.write("params.yaml", GATE)
    write(world.root, many(30))
    return world


def show(world: World, *arguments: str) -> list[str]:
    return world.holdfast("registry", "show", *arguments).stdout.splitlines()


def header(world: World, *arguments: str) -> list[str]:
    """The columns, of which a pipe has all that are shown."""
    return [name.strip() for name in show(world, *arguments)[2].split("   ") if name.strip()]


def on_a_terminal(world: World, width: int, *arguments: str) -> list[str]:
    """What a command writes to a terminal of that many columns, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m|\r", "", raw_terminal(world, width, *arguments)).splitlines()


def raw_terminal(world: World, width: int, *arguments: str) -> str:
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    variables = {name: value for name, value in environment(world.home).items() if name not in ("COLUMNS", "LINES")}
    command = [str(TOOLS / "holdfast"), "registry", *arguments]
    with subprocess.Popen(command, cwd=world.root, env=variables | {"TERM": "xterm"}, stdout=side) as process:
        os.close(side)
        data = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # the other side was closed
                break
            if not part:
                break
            data += part
        os.close(main)
    assert process.returncode == 0
    return data.decode()


def test_the_gates_metrics_come_first_and_classes_are_summed_up(world: World) -> None:
    names = header(world)
    assert names[:6] == ["version", "labels", "test_loss ↓", "odd ↓", "classes.*.recall ↑", "accuracy ↑"]
    assert names[-5:] == ["classes.*.f1 ↑", "size", "new bytes", "age", "commit"]
    assert len(names) == 2 + 25 + 2 + 4
    newest = next(line for line in show(world) if line.startswith(" v30"))
    recalls = many(30)[-1].metrics["classes"]
    worst = min(recalls, key=lambda label: recalls[label]["recall"])
    assert f"{recalls[worst]['recall']:.4g} ({worst[:13]}" in newest
    every = header(world, "--all-metrics")
    assert "classes.personality disorder.recall ↑" in every
    assert "classes.*.recall ↑" not in every
    assert len(every) == 2 + 25 + 14 + 4
    picked = header(world, "--metrics", "macro_f1,classes.*.f1,classes.normal.recall")
    assert picked[2:-4] == ["macro_f1 ↑", "classes.*.f1 ↑", "classes.normal.recall ↑"]
    error = error_of(world, "show", "--metrics", "accuracy,acuracy", code=2)
    assert "no version has the metric acuracy. There are accuracy, classes.*.f1, classes.*.recall, macro_f1" in error
    assert "exclude each other" in error_of(world, "show", "--metrics", "odd", "--all-metrics", code=2)
    whole = shown(world, "show")["models"][0]["versions"][-1]["metrics"]
    assert whole == many(30)[-1].metrics


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_terminal_shows_what_fits(world: World, width: int) -> None:
    lines = on_a_terminal(world, width, "show")
    assert max(map(len, lines)) <= width
    start = next(place for place, line in enumerate(lines) if line.startswith(" version"))
    assert len([line for line in lines if line.startswith(" v")]) == 31  # nothing is folded
    assert "test_loss ↓" in lines[start]
    assert ("odd ↓" in lines[start], "accuracy ↑" in lines[start]) == (width >= 100, width >= 200)
    told = " ".join(map(str.strip, lines[start + 32 :]))
    assert "Not shown for want of width: " in told
    assert "`--metrics A,B` picks" in told
    picked = on_a_terminal(world, width, "show", "--metrics", "metric_20")
    assert any(line.startswith(" version") and "metric_20 ↑" in line for line in picked)


def test_what_is_asked_for_whole_is_not_cut(world: World) -> None:
    assert on_a_terminal(world, 80, "show", "--all-metrics")[:5] == show(world, "--all-metrics")[:5]
    assert "\x1b[" in raw_terminal(world, 80, "show")
    write(world.root, many(MANY_ROWS + 1))
    assert "\x1b[" not in raw_terminal(world, 80, "show")  # rich would take seconds for thousands
    lines = on_a_terminal(world, 80, "show")
    assert len([line for line in lines if line.startswith(" v")]) == MANY_ROWS + 2
    assert max(map(len, lines)) <= 80


def view(model: Model, **changes: Any) -> list[tuple[str, ...]]:
    """The cells of a model's table, versions as they were registered."""
    table = tabulate(model)
    fields = {"added": Added({model.id: table.whole}, "files"), "gate": GateMetrics({"odd": "min"}), "day": DAY}
    block = VersionsView(**fields | changes, aligned=False).block(table)  # type: ignore[arg-type]
    return [tuple(block.columns), *[tuple(row) for row in block.rows][::-1]]


def test_better_and_worse_as_the_gate_says() -> None:
    values = [
        {"odd": 0.5, "accuracy": 0.5, "val_loss": 0.5, "n": 3, "name": "a", "flag": True},
        {"odd": 0.4, "accuracy": 0.4, "val_loss": 0.4, "n": 2, "name": "b", "flag": False},
        {"odd": 0.5, "accuracy": NAN, "val_loss": float("inf"), "n": 3.5},
        {"odd": None, "accuracy": "?"},
    ]
    model = Model(MODEL, "", "v1", {}, tuple(draft(place + 1, metrics) for place, metrics in enumerate(values)))
    columns, *rows = view(model)
    assert columns[2:8] == ("odd ↓", "accuracy ↑", "val_loss ↓", "n ↑", "name", "flag")
    assert [row[2:8] for row in rows] == [
        ("0.5", "0.5", "0.5", "3", "a", "True"),
        ("0.4 (-0.1 ✓)", "0.4 (-0.1 ✗)", "0.4 (-0.1 ✓)", "2 (-1 ✗)", "b", "False"),
        ("0.5 (=)", "nan", "inf (+inf ✗)", "3.5 (+0.5 ✓)", "", ""),
        ("", "?", "", "", "", ""),
    ]
    # without a champion, or one that has no number, nothing is compared
    assert all("(" not in cell for row in view(replace(model, current=None))[1:] for cell in row)
    assert [row[3] for row in view(replace(model, current="v3"))[1:]] == ["0.5", "0.4", "nan", "?"]
    assert [row[4] for row in view(replace(model, current="v3"))[1:]] == ["0.5", "0.4", "inf", ""]


def test_cells_of_a_column_stand_below_each_other() -> None:
    column = MetricColumn("accuracy", [0.5, 0.1234567, 12.0, None], "max")
    cells = column.cells(0, aligned=True)
    assert (
        cells == ["   0.5         ", "0.1235 -0.38 ✗ ", "    12 +12 ✓   ", "               "]
        or len(set(map(len, cells))) == 1
    )
    assert [cell.find("0.5") for cell in cells[:1]] == [3]
    assert {cell.index(sign) for cell in cells for sign in "+-" if sign in cell} == {7}


def test_directions_come_from_params(tmp_path: Path) -> None:
    file, cache = tmp_path / "params.yaml", RegistryCache(tmp_path / "cache.sqlite")
    now = time.time_ns() + 10**9
    assert gate_metrics(tmp_path, cache, now) == GateMetrics()
    file.write_text(GATE)
    found = gate_metrics(tmp_path, cache, now)
    assert (dict(found.directions), list(found.scores)) == ({"test_loss": "min", "odd": "min"}, ["recall"])
    assert gate_metrics(tmp_path, cache, now) == found
    file.write_text(
        "promote:\n  metrics: {odd: {direction: max, floor: 1}}\n  bootstrap: {macro_f1: {tolerance: 0.1}}\n"
    )
    assert dict(gate_metrics(tmp_path, cache, now).directions) == {"odd": "max", "macro_f1": "max"}
    file.write_text("promote: {metrics: {odd: {}}}\n")
    broken = gate_metrics(tmp_path, cache, now)
    assert not broken.directions
    assert "says no direction" in broken.note
    table = tabulate(Model(MODEL, "", None, {}, (draft(1, {"recall_per_class": {"a": 0.2, "b": 0.1}, "rest": 1.0}),)))
    columns = metric_columns(table, broken, [], every=False)
    assert [(column.name, list(column.values), list(column.notes)) for column in columns] == [
        ("rest", [1.0], []),
        ("recall_per_class.*", [0.1], ["b"]),
    ]


def test_whole_files_are_counted_once(world: World) -> None:
    versions = [
        draft(1, {}),
        draft(2, {}, oid=draft(1, {}).oid),
        draft(3, {}, oid=f"{3:032x}.dir", weights_file="m.safetensors"),
        draft(4, {}, oid=f"{3:032x}.dir", weights_file="m.safetensors"),
    ]
    write(world.root, versions, "other/model")
    answer = shown(world, "show", "other/model")
    assert answer["new_bytes_of"] == "files"
    assert [entry["new_bytes"] for entry in answer["models"][0]["versions"]] == [1000, 0, None, 0]
    rows = [line for line in show(world, "other/model") if line.startswith(" v")][1:]
    assert [row.split("kB", 1)[1].split("20")[0].strip()[:8] for row in rows[::-1]][2].startswith("≤ 3.0 kB")
    assert "the project has no vault" in "\n".join(show(world, "other/model", "--stored"))


@pytest.mark.parametrize(("file", "text"), [(".dvc/config", "[core"), ("holdfast.yaml", "vault: [")])
def test_a_broken_configuration_hides_no_versions(world: World, file: str, text: str) -> None:
    (world.root / file).write_text(text)
    lines = show(world)
    assert len([line for line in lines if line.startswith(" v")]) == 31
    assert lines[-1].startswith("Whether there is a vault is not known: ")
    assert "unexpected" not in error_of(world, "show", "--stored", code=1)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=12), st.text("0123456789.-+✓✗ ", max_size=8), st.sampled_from(["", "日本", "–", "a\nb"])
        ),
        max_size=8,
    )
)
def test_a_pipe_gets_the_tables_of_rich(rows: list[tuple[str, str, str]]) -> None:
    rows = [tuple(cell.strip().replace("\r", "") for cell in row) for row in rows]  # type: ignore[misc]
    table = Table(("name", "metric ↑", "in use"), rows, "A title", frozenset({"metric ↑"}))
    texts = []
    for print_it in (emit, emit_quickly):
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            print_it("text", {}, [table, "the end"])
        texts.append(stream.getvalue())
    assert texts[0] == texts[1]


def test_what_is_remembered_is_what_the_files_say(tmp_path: Path) -> None:
    write(tmp_path, many(5))
    write(tmp_path, [draft(1, {"a": {"b": NAN, "c": None}, "d": [1, 2]})], "other/model")
    path = tmp_path / "cache.sqlite"
    plain = Registry(tmp_path)
    for _ in range(2):  # the second time out of the cache
        remembered = Registry(tmp_path, RegistryCache(path))
        assert repr(remembered.models()) == repr(plain.models())
        assert repr(remembered.tables()) == repr([tabulate(model) for model in plain.models()])
        assert repr(remembered.summaries()) == repr([summarize(model) for model in plain.models()])
    cache = RegistryCache(path)
    state = {name: cache.table(name, ()) for name in (MODEL, "other/model")}
    assert state == {MODEL: None, "other/model": None}


@pytest.mark.parametrize("edit", ["in place", "same size and time", "replaced", "removed", "added", "linked elsewhere"])
def test_an_edited_version_is_seen(tmp_path: Path, edit: str) -> None:
    write(tmp_path, [draft(1, {"accuracy": 0.5}), draft(2, {"accuracy": 0.6})])
    path, file = tmp_path / "cache.sqlite", tmp_path / "registry" / MODEL / "v1.yaml"

    def values() -> list[Any]:
        return list(Registry(tmp_path, RegistryCache(path)).tables()[0].metrics["accuracy"])

    assert values() == values() == [0.5, 0.6]
    times = file.stat()
    changed = file.read_text().replace("accuracy: 0.5", "accuracy: 0.7")
    expected = [0.7, 0.6]
    if edit == "in place":
        file.write_text(changed)
    elif edit == "same size and time":
        file.write_text(changed)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    elif edit == "replaced":
        other = tmp_path / "other.yaml"
        other.write_text(changed)
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
        other.replace(file)
    elif edit == "removed":
        file.unlink()
        expected = [0.6]
    elif edit == "added":
        file.with_name("v3.yaml").write_text(changed)
        expected = [0.5, 0.6, 0.7]
    else:
        other = tmp_path / "other.yaml"
        other.write_text(changed)
        file.unlink()
        file.symlink_to(other)
        assert values() == expected
        other.write_text(changed.replace("0.7", "0.8"))
        expected = [0.8, 0.6]
    assert values() == expected
    assert values() == expected


def test_what_was_written_this_moment_is_not_remembered(tmp_path: Path) -> None:
    write(tmp_path, many(2), settled=False)
    folder = tmp_path / "registry" / MODEL
    state = fingerprint(folder)
    newest = max(max(mtime, ctime) for _, _, _, mtime, ctime in state)
    for later, kept in ((RACY_NS - 1, False), (RACY_NS, True)):
        path = tmp_path / f"{later}.sqlite"
        Registry(tmp_path, RegistryCache(path, lambda later=later: newest + later)).tables()  # type: ignore[misc]
        assert (RegistryCache(path).table(MODEL, state) is not None) == kept


def test_a_damaged_cache_is_read_past(tmp_path: Path) -> None:
    write(tmp_path, many(3))
    path = tmp_path / "cache.sqlite"
    expected = repr(Registry(tmp_path, RegistryCache(path)).tables())
    for column in ("columns", "content", "summary"):
        for text in ("{", "[]", '{"names": []}', "null", ""):
            with sqlite3.connect(path) as connection:
                connection.execute(f"UPDATE models SET {column} = ?", (text,))
            connection.close()
            registry = Registry(tmp_path, RegistryCache(path))
            assert repr(registry.tables()) == expected
            assert len(registry.models()[0].versions) == registry.summaries()[0].versions == 3


def test_labels_and_deprecations() -> None:
    versions = tuple(draft(number, {}) for number in (1, 2))
    model = Model(MODEL, "", "v2", {"b": "v1", "a": "v1"}, versions, (), {"v1": Deprecation("old", None)})
    assert tabulate(model).labels == {"v2": ["current"], "v1": ["a", "b", "deprecated"]}
    assert json.loads(json.dumps(vars(tabulate(model))))["champion"] == "v2"
