"""How a table looks in a terminal that it is too wide for.

Columns wrap between words as long as every word has room; else each row becomes lines of its own, with the headings
before the values. So no id is broken where it need not be, and no column vanishes.
"""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

GAP = 2  # between columns, as rich leaves it


def fitted(table: Table, width: int) -> RenderableType:
    """The table in so many columns of a terminal."""
    cells = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    least = [max(map(_longest_word, column)) for column in cells]
    spare = width - sum(least) - GAP * (len(least) - 1)
    if spare < 0:
        return Group(*_one_by_one(cells))
    for column, texts, needed in zip(table.columns, cells, least, strict=True):
        more = min(spare, max(map(_length, texts)) - needed)
        column.width, spare = needed + more, spare - more
    return table


def _one_by_one(cells: list[list[str]]) -> Iterable[RenderableType]:
    """A small table for each row; what is empty is left out, and a blank line parts them."""
    headings, *rows = zip(*cells, strict=True)
    for row in rows:
        lines = Table(box=None, pad_edge=False, show_header=False)
        lines.add_column(no_wrap=True, style="bold")
        lines.add_column(overflow="fold")
        for heading, value in zip(headings, row, strict=True):
            if value:
                lines.add_row(heading, value)
        yield lines
        yield ""


def _length(markup: str) -> int:
    return Text.from_markup(markup).cell_len


def _longest_word(markup: str) -> int:
    return max((Text(word).cell_len for word in Text.from_markup(markup).plain.split()), default=0)
