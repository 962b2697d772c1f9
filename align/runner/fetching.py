"""Fetching what a configuration needs and does not have."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from align.checkpoints.needed import Needed, missing_text
from align.checkpoints.reference import hub_names
from align.runner.exits import DONE, MISSING_WEIGHTS


def fetch_missing(needed: Callable[[], Sequence[Needed]]) -> int:
    """Fetch all that is missing and on the net; returns 0 if nothing is missing afterwards, else 3.

    ``needed`` is called again in the end, as where files are can change when they come.
    """
    from align.checkpoints.fetch import FetchError, fetch_hub, fetch_url

    for one in needed():
        gone = one.missing()
        if not gone:
            continue
        print(f"fetching {one.what}: {', '.join(gone)}", flush=True)
        try:
            if one.hub is not None:
                fetch_hub(one.hub, hub_names(one.hub, gone))
            for file in one.urls:
                fetch_url(file.url, file.sha256, file.target)
        except FetchError as error:
            print(f"align: {error}", file=sys.stderr)
    left = missing_text(needed())
    if left:
        print(left, file=sys.stderr)
    else:
        print("all files of this configuration are there")
    return MISSING_WEIGHTS if left else DONE
