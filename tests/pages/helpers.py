"""Tables of a report as texts."""

from align.pages.sections import sections


def tables(made):
    """The cells of each table, by title, row and column."""
    return {
        title: {row: {name: str(cell) for name, cell in cells.items()} for row, cells in table.items()}
        for section in sections(made)
        for title, table in section.tables().items()
    }
