"""The schemas of ``--json`` as such: valid, told in the reference, strict where the shape is ours."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from holdfast.cli.schema import commands_with_schema, read_schema
from worlds import TOOLS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "json.md"
COMMANDS = [" ".join(words) for words in commands_with_schema()]
# plans that say what they are by other words, and a tree for services
UNNAMED = ("code archive", "registry consolidate", "registry export", "registry rm")


def schema_of(command: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(read_schema(tuple(command.split())))
    return schema


def formats(schema: dict[str, Any]) -> list[str]:
    """The names of a schema's forms."""
    forms = schema.get("oneOf", [schema])
    names = [form["properties"].get("format", {}).get("const", "") for form in forms if "properties" in form]
    return sorted({*names} - {""})


def table() -> str:
    """The table of the reference."""
    rows = [(command, formats(schema_of(command))) for command in COMMANDS]
    lines = [f"| `holdfast {command}` | {', '.join(f'`{name}`' for name in names) or '–'} |" for command, names in rows]
    return "\n".join(["| command | `format` |", "| --- | --- |", *lines])


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema within a schema."""
    if isinstance(schema, dict):
        if "type" in schema or "$ref" in schema or "properties" in schema:
            yield schema
        for value in schema.values():
            yield from parts(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from parts(value)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_schema(command: str) -> None:
    schema = schema_of(command)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == f"holdfast {command} --json"
    assert formats(schema) or command in UNNAMED
    for part in parts({name: value for name, value in schema.items() if name != "$schema"}):
        if "properties" in part:
            assert part["additionalProperties"] is False
            assert set(part["required"]) <= set(part["properties"])
        if "$ref" in part:
            assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]
    used = {part["$ref"].rpartition("/")[2] for part in parts(schema) if "$ref" in part}
    assert used == set(schema.get("$defs", {}))


def test_the_reference_lists_them() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


def test_the_command_prints_them() -> None:
    def holdfast(*words: str, code: int = 0) -> str:
        done = subprocess.run([str(TOOLS / "holdfast"), "schema", *words], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout or done.stderr

    assert holdfast().splitlines() == COMMANDS
    assert json.loads(holdfast("registry", "show")) == schema_of("registry show")
    assert holdfast("registry", code=2) == (
        "holdfast: `holdfast registry` has no schema. `holdfast schema` lists those that have\n"
    )
    assert "has no schema" in holdfast("..", "schemas", "check", code=2)


def test_the_package_has_them() -> None:
    """What a wheel takes along beside modules is what pyproject.toml names."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    package = ROOT / "src" / "holdfast"
    taken = {path for pattern in data["holdfast"] for path in package.glob(pattern)}
    assert set((package / "cli" / "schemas").iterdir()) <= taken
