"""``python -m align train NAME``: change a model instead of guiding it."""

from __future__ import annotations

from collections.abc import Sequence

from align.commands.parser import Parser

MORE = """\
NAME is a config of the group training.  The same command again goes on where it was, also after a kill; under torchrun or
accelerate launch the processes share the work.  Results: best/ and last/ in run.folder, for backbone.lora=FILE; log.jsonl.
"""
EXAMPLES = {
    "spo": "SPO of the shapes world's model, about an hour on one core",
    "spo backbone=sd15 prompts=file prompts.path=mine.txt": "another model, prompts of your own",
    "spo training.rounds=20 run.folder=outputs/short": "only the first rounds",
}


def main(argv: Sequence[str]) -> int:
    """The verb; returns its exit code. Raises ConfigError, FilesMissing before any work."""
    parser = Parser("train", MORE, EXAMPLES)
    what = "what is trained, and what is not as it is by default"
    parser.add_argument("words", nargs="*", metavar="NAME | GROUP=NAME | OPTION=VALUE", help=what)
    parser.takes_configs()
    found = parser.read(argv)
    name, *words = found.words or [""]
    from align.config.errors import ConfigError, suggestion
    from align.config.places import group_choices

    choices = group_choices("training", found.config_dir)
    if name not in choices:
        if not name or "=" in name:
            parser.error(f"give first what is trained: {', '.join(choices)}")
        raise ConfigError(f"train: there is no training {name}{suggestion(name, choices)}")
    from align.training.plan import plan_of

    plan = plan_of(name, parser.command(found, words))
    from align.training.start import start

    return start(plan)
