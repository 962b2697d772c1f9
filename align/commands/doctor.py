"""``python -m align doctor``: what is here, what is missing, and the exact command that brings it."""

from __future__ import annotations

from collections.abc import Sequence

from align.commands.parser import Parser

MORE = "What is missing is named with the command that brings it."
EXAMPLES = {
    "": "what is here for the default configuration",
    "--fetch method=dymo backbone=sdxl": "bring every file that these need, hash-checked",
    "method=das": "what the method is made of, among the rest",
}


def main(argv: Sequence[str]) -> int:
    """The verb; returns 0 if the backbone can run (with ``-m`` all of them), 3 if not.

    With ``--fetch``, what the configuration needs is fetched first; 3 if any of it is missing afterwards.

    Raises:
        ConfigError: an override is wrong.
    """
    parser = Parser("doctor", MORE, EXAMPLES)
    parser.add_argument(
        "words", nargs="*", metavar="GROUP=NAME | OPTION=VALUE", help="the configuration that is looked at"
    )
    parser.takes_configs(sweeps=True)
    parser.add_argument(
        "--fetch", action="store_true", help="bring what the configuration needs and the net has"
    )
    found = parser.read(argv)
    command = parser.command(found, found.words)
    from align.config.compose import jobs_of
    from align.config.errors import ConfigError
    from align.runner.parts_table import parts_lines

    objections: list[ConfigError] = []
    configs = [job.config for job in jobs_of(command, objections)]
    for config in () if found.fetch else {config.method.name: config for config in configs}.values():
        print(f"method {config.method.name}", *(f"  {line}" for line in parts_lines(config)), sep="\n")
    if objections:
        raise objections[0]
    if found.fetch:
        from align.runner.files import needed_by_all
        from align.runner.survey import fetch_missing

        return fetch_missing(lambda: needed_by_all(configs))
    from align.runner.survey import survey

    return survey(configs)
