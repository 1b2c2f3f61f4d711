"""The pages that explain say what is: figures that were measured, counts of the tests, the rooms and the exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import test_vault_broken
import test_vault_sequences
from holdfast import errors
from how_to_world import DOCS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = DOCS.parent


def page(name: str) -> str:
    return (DOCS / name).read_text()


def tables(text: str, title: str) -> list[list[dict[str, str]]]:
    """The tables below a heading, each row by its column's name; the first column's is empty."""
    (body,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def test_the_example_of_the_codec_prints_what_the_page_shows() -> None:
    ((code, shown),) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", page("explanation/codec.md"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == shown
    told = dict(re.findall(r"^(.+?)  +(?:[\d,]+ B +)?([\d.]+)%?$", shown, re.MULTILINE))
    bits, ratio = told["bits: by exponent"], told["codec, base"]
    assert f"Of 16 bits a number {bits} are left to say, which would be {16 / float(bits):.2f} times smaller." in page(
        "explanation/codec.md"
    )
    assert f"The codec comes to {ratio}," in page("explanation/codec.md")


@pytest.mark.parametrize(
    ("title", "source", "first"),
    [
        ("What it comes to", "performance.md", ""),
        ("Why a pull stays quick", "performance.md", "restoring reads {}: newest, most"),
        ("What it costs", "design/vault-codec.md", ""),
    ],
)
def test_the_figures_of_the_codec_are_those_that_were_measured(title: str, source: str, first: str) -> None:
    (table,) = tables(page("explanation/codec.md"), title)
    measured = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[1:-1]]
        for line in reversed(page(source).splitlines())
        if line.startswith("| ")
    }
    heads = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page(source).splitlines()
        if line.startswith("|") and set(table[0]) <= {cell.strip() for cell in line.split("|")[1:-1]}
    ]
    assert heads, f"{source} has no table with the columns {list(table[0])}"
    for row in table:
        name = (first or "{}").format(row[""])
        known = dict(zip(heads[0], measured[name], strict=True))
        assert {column: known[column] for column in row if column} == {
            column: value for column, value in row.items() if column
        }, name


def test_restic_and_zstd_are_as_the_codec_says() -> None:
    text = " ".join(page("explanation/codec.md").split())
    figures = {
        row[""]: row["fp32 with AdamW's state"] for row in tables(page("explanation/codec.md"), "What it comes to")[0]
    }
    assert (
        f"restic made twelve checkpoints with AdamW's state {float(figures['restic, max']):.2f} times smaller" in text
    )
    assert f"zstd made them {float(figures['zstd -3 of each file']):.2f} times smaller" in text


def test_as_much_is_tried_as_is_said_of_the_collection() -> None:
    text = page("explanation/gc-safety.md")
    seeds = test_vault_sequences.SEEDS
    assert f"{2 * seeds:,} in each run of the tests, {20 * seeds:,} more in `make soak`" in text
    assert f"| {len(test_vault_broken.BROKEN)} collectors and writers that are broken on purpose" in text
    assert f"the sequences catch {len(test_vault_broken.BROKEN)} broken ones" in text
    assert "run_many(10_000, 20 * SEEDS)" in Path(test_vault_sequences.__file__).read_text()


@pytest.mark.parametrize("name", ["design", "gc-safety"])
def test_the_tests_that_are_named_are_there(name: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", page(f"explanation/{name}.md")))
    assert len(named) > 5
    assert {module for module in named if not (PROJECT / f"tests/{module}.py").is_file()} == set()


def test_the_rooms_are_those_that_are_checked() -> None:
    (rooms,) = re.findall(r"^## Rooms\n.*?^```\n(.*?)^```", page("explanation/design.md"), re.DOTALL | re.MULTILINE)
    drawn = [{*re.split(r" {2,}", line.strip())[0].split(" │ ")} for line in rooms.splitlines()]
    (contract, *_) = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert drawn == [{room.strip() for room in layer.split("|")} for layer in contract["layers"]]


def test_the_exit_codes_are_those_of_the_errors() -> None:
    (told,) = re.findall(r"^## Exit codes\n(.*)", page("explanation/design.md"), re.DOTALL | re.MULTILINE)
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    table = told.split("A script")[0]
    assert {int(code) for code in re.findall(r"\b\d+\b", table)} == codes | {0, 130}
