"""The documentation: its links lead somewhere, its code runs, its commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from holdfast.cli.main import root
from holdfast.runs.validate import validate_run

PROJECT = Path(__file__).parent.parent
PAGES = sorted(
    [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")], key=lambda page: page.relative_to(PROJECT).as_posix()
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language: str) -> list[tuple[Path, str]]:
    return [(page, code) for page in PAGES for kind, code in BLOCK.findall(page.read_text()) if kind == language]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", page.read_text())):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


@pytest.mark.parametrize("page", sorted({page for page, _ in blocks("python")}), ids=lambda page: page.name)
def test_python_examples_run(tmp_path: Path, page: Path) -> None:
    """All of a page's examples, one after the other: a later one may use what an earlier one made."""
    code = "\n".join(code for other, code in blocks("python") if other == page)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_run_of_the_how_to_is_valid(tmp_path: Path) -> None:
    page = PROJECT / "docs" / "how-to" / "record-a-run.md"
    code = next(code for other, code in blocks("python") if other == page)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)

    (folder,) = (tmp_path / "outputs").iterdir()
    assert validate_run(folder).faults == ()


def test_commands_in_the_docs_exist() -> None:
    found = 0
    for page, code in blocks("console"):
        for line in code.splitlines():
            if not line.startswith("$ holdfast "):
                continue
            command: click.Command = root
            words = re.sub(r"\s+#.*", "", line).split()[2:]
            while words and isinstance(command, click.Group):
                child = command.get_command(click.Context(command), words.pop(0))
                assert child is not None, f"{page}: {line}"
                command = child
            options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            for word in words:
                assert not word.startswith("-") or word.split("=")[0] in options, f"{page}: {line}"
            found += 1
    assert found > 5
