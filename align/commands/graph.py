"""``python -m align graph "a prompt"``: the prompt's graph, and the words that would be paired."""

from __future__ import annotations

import json
from collections.abc import Sequence

from align.output import can_print
from align.runner.exits import DONE

USAGE = """\
python -m align graph "A PROMPT" [semantics=NAME] [OPTION=VALUE] ...

Prints the graph of a prompt as JSON, then the words whose attention maps DyMO draws together (+) and apart (-).
"""


def main(argv: Sequence[str]) -> int:
    """The command ``graph``.

    Args:
        argv: the prompt, then overrides such as ``semantics=rules``.

    Raises:
        ConfigError: an override is wrong, or there is no graph.
    """
    from align.commands.parser import parse
    from align.config.compose import jobs_of
    from align.config.errors import ConfigError
    from align.runner.graphs import graphs_of
    from align.semantics.errors import GraphError

    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return DONE
    prompt, *overrides = argv
    (config, *_) = (job.config for job in jobs_of(parse(overrides)))
    try:
        found = graphs_of(config).words(prompt)
    except GraphError as error:
        raise ConfigError(str(error)) from error
    text = json.dumps(found.to_json(prompt), ensure_ascii=False)
    print(text if can_print(text) else json.dumps(found.to_json(prompt)))
    for noun, attributes in found.objects:
        for attribute in attributes:
            print(f"+ {noun} {attribute}")
    nouns = [noun for noun, _ in found.objects]
    for place, noun in enumerate(nouns):
        for other in nouns[place + 1 :]:
            print(f"- {noun} {other}")
    return DONE
