"""``python -m align online blackbox=NAME``: rounds of pictures that a reward without a gradient, or a slow one, is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from align.commands.parser import Parser

if TYPE_CHECKING:
    from align.config.command import Command
    from align.config.compose import Job
    from align.online.rounds import Online
    from align.runner.files import Files

MORE = """\
The black box is any registered reward, a user's own too, and is asked about each picture once.  What it said so far, as a
function of image features, is what the method follows in the next round.  All options of a run are there; rounds=NAME and
surrogate=NAME say how often is asked and what is learned.  The same command again goes on where it was stopped.
"""
EXAMPLES = {
    "blackbox=jpeg_compressibility": "1 + 8 rounds of 16 pictures of the shapes world",
    "blackbox=shapes_aesthetic surrogate=ucb rounds.number=16": "another surrogate, more rounds",
    "'run.plugins=[mine.py]' blackbox=mine method=best_of_n method.particles=16": "a reward and a method of your own",
    "experiment=online_sd15_aesthetic": "as published, on Stable Diffusion 1.5",
}
USUAL = "online_shapes"
"""The experiment of a command that names none."""


def main(argv: Sequence[str]) -> int:
    """The verb; returns its exit code. Raises ConfigError, FilesMissing before any work."""
    parser = Parser("online", MORE, EXAMPLES)
    parser.add_argument(
        "words", nargs="*", metavar="GROUP=NAME | OPTION=VALUE", help="what is not as it is by default"
    )
    parser.takes_configs()
    found = parser.read(argv)
    online = read_online(parser.command(found, found.words))
    from rich.console import Console

    from align.online.experiment import run_online

    return run_online(online, Console(soft_wrap=False))


def read_online(command: Command) -> Online:
    """The experiment that a command asks for. Raises ConfigError."""
    from align.config.compose import jobs_of
    from align.config.errors import ConfigError
    from align.runner.files import Files

    keys = [text.lstrip("+~").partition("=")[0] for text in command.overrides]
    if any(key == "reward" or key.startswith("reward.") for key in keys):
        raise ConfigError("online: the surrogate is the reward: give blackbox=NAME for what it stands for")
    if "experiment" not in keys:
        command = replace(command, told=(f"experiment={USUAL}", *command.told))
    (job,) = jobs_of(command)
    return checked(job, Files(job.config))


def checked(job: Job, files: Files) -> Online:
    """The experiment of a composed configuration, in its folder. Raises ConfigError."""
    from align.config.check_budget import refuse_budget
    from align.config.errors import ConfigError, suggestion
    from align.online.rounds import Online, check
    from align.rewards.registry import REWARDS
    from align.runner.default_folder import default_folder
    from align.runner.prompts import load_prompts

    config = job.config
    refuse_budget(config, "online")
    surrogate, rounds, name = config.surrogate, config.rounds, config.blackbox
    if surrogate is None or rounds is None:
        raise ConfigError(
            "online needs surrogate=NAME and rounds=NAME: give them, or experiment=online_shapes"
        )
    if name is None:
        raise ConfigError(
            "online asks a black box: give blackbox=NAME, such as blackbox=jpeg_compressibility"
        )
    if name not in REWARDS:
        raise ConfigError(f"blackbox={name}: there is no such reward{suggestion(name, REWARDS, 'rewards')}")
    if not config.method.uses_reward:
        raise ConfigError(
            f"method={config.method.name} follows no reward: give method=das, or another that does"
        )
    found = load_prompts(config.prompts, files.prompts)
    own = [row for row in found.rows if row.negative is not None or row.seed is not None]
    if own:
        raise ConfigError(
            f"{own[0].place}: online draws its own seeds and has one negative prompt: give prompts.seed_column=null and "
            "prompts.negative_column=null"
        )
    folder = config.run.folder
    if folder is None:
        root, _, name_of = default_folder(files, job.overrides).rpartition("/")
        folder = f"{root}/online/{name_of}"
    config = replace(config, run=replace(config.run, folder=folder))
    online = Online(config, surrogate, rounds, name, found.prompts)
    check(online)
    return online
