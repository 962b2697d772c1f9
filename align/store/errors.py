"""The two errors of this package. Both carry one line that says what is wrong and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class StoreError(Exception):
    """A run folder cannot be used: locked, of another configuration, or not writable."""


class ReportError(Exception):
    """A report cannot be made from the folders given."""


@contextmanager
def as_store_error(doing: str) -> Iterator[None]:
    """Turn an operating-system error inside the block into a one-line ``StoreError``: "cannot write results.csv: ..."."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(
            f"cannot {doing}: {reason}; nothing finished is lost, mend it and run the same command again"
        ) from error
