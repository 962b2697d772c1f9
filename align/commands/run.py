"""``python -m align [GROUP=NAME] [OPTION=VALUE] ...``: the verb that need not be named."""

from __future__ import annotations

from collections.abc import Sequence

from align.commands.parser import Parser
from align.commands.verbs import RUN
from align.runner.exits import DONE

EXAMPLES = {
    "method=dymo": "one run; the same command again goes on",
    "-m method=none,dymo seed=0,1": "every combination of the values",
    "backbone=sdxl prompts=file prompts.path=mine.txt": "another model, prompts of your own",
    "--cfg job method=dymo": "every option and its value",
}


def main(argv: Sequence[str]) -> int:
    """The verb; returns its exit code. Raises ConfigError, FilesMissing."""
    parser = _parser()
    found = parser.read(argv)
    command = parser.command(found, found.words)
    if found.help:
        from align.commands.help import overview

        print(_parser(overview(command.config_dir)).format_help(), end="")
        return DONE
    from align.config.compose import jobs_of

    jobs = jobs_of(command)
    if found.cfg is not None:
        from align.config.show import show
        from align.runner.default_folder import in_folders

        print(show(in_folders(jobs), found.cfg), end="")
        return DONE
    from align.runner.launch import launch

    return launch(command, jobs)


def _parser(more: str = "") -> Parser:
    parser = Parser(RUN, more, EXAMPLES)
    parser.add_argument(
        "words", nargs="*", metavar="GROUP=NAME | OPTION=VALUE", help="what is not as it is by default"
    )
    parser.takes_configs(sweeps=True)
    parser.add_argument(
        "-c", "--cfg", choices=("job", "hydra", "all"), help="print the configuration, run nothing"
    )
    return parser
