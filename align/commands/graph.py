"""``python -m align graph PROMPT``: the prompt's graph, and the words that would be paired."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations

from align.commands.parser import Parser
from align.output import can_print
from align.runner.exits import DONE

MORE = "Prints the graph as JSON, then the words whose attention maps DyMO draws together (+) and apart (-)."
EXAMPLES = {
    '"a red circle above a blue star"': "as the default backbone's grammar reads it",
    '"a red cat beside a blue dog" semantics=rules': "any English prompt",
    '"a red cat beside a blue dog" semantics=llm semantics.local=FOLDER': "as a chat model of this machine does",
}


def main(argv: Sequence[str]) -> int:
    """The verb; returns its exit code. Raises ConfigError: an override is wrong, or there is no graph."""
    parser = Parser("graph", MORE, EXAMPLES)
    parser.add_argument("prompt", metavar="PROMPT", help="in quotes")
    what = "whose graph: semantics=NAME, semantics.path=FILE, ..."
    parser.add_argument("words", nargs="*", default=[], metavar="OPTION=VALUE", help=what)
    parser.takes_configs()
    found = parser.read(argv)
    command = parser.command(found, found.words)
    from align.config.compose import jobs_of
    from align.config.errors import ConfigError
    from align.runner.graphs import graphs_of
    from align.semantics.graph import GraphError

    (job,) = jobs_of(command)
    try:
        graph = graphs_of(job.config).words(found.prompt)
    except GraphError as error:
        raise ConfigError(f"graph: {error}") from error
    text = json.dumps(graph.to_json(found.prompt), ensure_ascii=False)
    print(text if can_print(text) else json.dumps(graph.to_json(found.prompt)))
    for noun, attributes in graph.objects:
        for attribute in attributes:
            print(f"+ {noun} {attribute}")
    for (noun, _), (other, _) in combinations(graph.objects, 2):
        print(f"- {noun} {other}")
    return DONE
