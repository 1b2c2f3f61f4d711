"""What walks the pages sees it where a page is wrong."""

from pathlib import Path

import pytest

from forks import Forks
from how_to_world import Page, Step, is_shown, steps_of
from worlds import make_repository


def test_a_block_is_read_as_people_read_it() -> None:
    block = "$ holdfast a \\\n    --b c   # as ever\nfirst\n\n  second\n$ git merge x    # ends with 1\n"
    assert steps_of(block) == [Step("holdfast a --b c", 0, ("first", "  second")), Step("git merge x", 1)]
    with pytest.raises(AssertionError, match="printed by no command"):
        steps_of("first\n$ holdfast a\n")


@pytest.mark.parametrize(
    ("shown", "printed", "right"),
    [
        ("", "anything\n", True),
        ("one\ntwo", "one\n\ntwo  \n", True),
        ("one\ntwo", "one\ntwo\nthree\n", False),
        ("one\ntwo", "two\n", False),
        ("one\n…", "one\ntwo\nthree\n", True),
        ("one\n…\nthree", "one\nthree\n", True),
        ("one\n…\nthree", "one\ntwo\n", False),
        ("in … of 3.5 kB", "in 12 packs of 3.5 kB\n", True),
        ("in … of 3.5 kB", "in 12 packs of 345 kB\n", False),
        ("one …", "one two\nthree\n", False),
    ],
)
def test_what_is_printed_is_compared(shown: str, printed: str, right: bool) -> None:
    assert is_shown(shown, printed) is right


def test_commands_are_run_and_their_ends_compared(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    with Forks() as forks:
        page = Page("how-to/use-a-vault.md", forks)
        page.run(Step("holdfast registry list", 0, ("Nothing is registered yet: …",)), world)
        page.run(Step("echo NAME > file && cat file", 0, ("NAME",)), world, {"NAME": "given"})
        assert (world.root / "file").read_text() == "given\n"
        for step in (
            Step("holdfast registry list", 1),
            Step("holdfast registry list", 0, ("There are two models.",)),
            Step("git switch nowhere"),
            Step("cat file", 0, ("NAME",)),
        ):
            with pytest.raises(AssertionError):
                page.run(step, world)
        with pytest.raises(AssertionError, match="has no 1234"):
            page.walk("Make one", world, {"1234": "5678"})
