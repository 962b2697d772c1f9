"""``python -m align [GROUP=NAME] [OPTION=VALUE] ...``: the verb that need not be named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from align.commands.parser import Parser
from align.commands.verbs import RUN
from align.output import can_print
from align.runner.exits import DONE

if TYPE_CHECKING:
    from align.config.compose import Job

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
    if (training := jobs[0].config.training) is not None:
        parser.error(f"a run trains nothing; give python -m align train {training.name}")
    if found.cfg is not None:
        print(_shown(jobs, found.cfg), end="")
        return DONE
    from align.runner.launch import launch

    return launch(command, jobs)


def _shown(jobs: Sequence[Job], what: str) -> str:
    """Runs as YAML, every option with its value: ours ("job"), Hydra's own part ("hydra"), or "all"."""
    import yaml
    from omegaconf import OmegaConf

    from align.config.convert import plain
    from align.runner.default_folder import in_folders

    pages = []
    for job in in_folders(jobs):
        text = "" if what == "hydra" else OmegaConf.to_yaml(OmegaConf.create(plain(job.config)))
        if what in ("hydra", "all"):
            text += OmegaConf.to_yaml(OmegaConf.create({"hydra": job.hydra}))
        if not can_print(text):  # so that it can be given back all the same
            text = yaml.safe_dump(yaml.safe_load(text), sort_keys=False)
        pages.append(text)
    return "---\n".join(pages)


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
