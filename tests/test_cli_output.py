"""Tables that are piped look as they do in a terminal that is wide enough."""

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from holdfast.cli.output import Table, _plain, _rich

names = st.text("abcÄ日 ", min_size=1, max_size=6).map(str.strip).filter(bool)
cells = st.text("ab c日é\n…x1.─", max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    rows = draw(st.lists(st.lists(cells, min_size=len(columns), max_size=len(columns)), max_size=4))
    return Table(columns, rows, right=frozenset(draw(st.lists(st.sampled_from(columns)))))


@given(tables())
def test_a_table_is_laid_out_as_in_a_terminal(table: Table) -> None:
    console = Console(width=10_000, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(_rich(table))
    assert [line.rstrip() for line in _plain(table)] == [line.rstrip() for line in captured.get().split("\n")[:-1]]


def test_a_title_stands_in_one_line_above() -> None:
    assert _plain(Table(["a"], [["1"]], title="longer than the table")) == [
        *("longer than the table", "", " a", " ─", " 1", "")
    ]
