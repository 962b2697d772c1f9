"""The text of ``python -m align --help``; made from the config files, so a new one shows by itself."""

from __future__ import annotations

from pathlib import Path

from align.config.places import default_choices, group_choices, summary_line
from align.config.schema import GROUPS

HEAD = """\
Inference-time alignment of text-to-image diffusion models.

  python -m align [GROUP=NAME] [OPTION=VALUE] ...   make pictures; the same command again goes on
  python -m align -m method=none,dymo seed=0,1      every combination of the values
  python -m align table NAME... [--scale shapes]    run a published table, the paper's numbers beside ours
  python -m align score PICTURES [metrics=NAME]     measure pictures that are there: a folder, a table, a run
  python -m align report FOLDERS...                 compare runs picture by picture
  python -m align gallery FOLDERS... --out FILE     look at them side by side
  python -m align graph PROMPT [semantics=...]      which words of a prompt DyMO pairs
  python -m align doctor                            what is installed and what is missing
"""
TAIL = """\
Common options (--cfg job shows all of them, with their values)
  seed=0               seed of the noise            samples=1            pictures of each prompt
  negative=""          negative prompt              prompts.limit=16     only the first prompts
  sampler.steps=25     sampling steps               run.folder=FOLDER    where results go
  run.batch_size=8     most rows of a call          run.in_flight=32     pictures made together
  run.device=auto      auto, cpu, cuda, cuda:1      run.threads=2        CPU threads
  run.shared=true      share the folder's work      run.extend=true      keep another config's rows
  run.plugins=[a.py]   rewards of your own, from a Python file that is run

Flags
  -m, --multirun       run all combinations         -c, --cfg job        print the configuration
  --config-dir FOLDER  your own config groups       -h, --help           this text
  -v, --verbose        tracebacks, of any command   --version            versions and commit

Exit codes: 0 all done, 1 something failed, 2 configuration, 3 missing weights, 130 interrupted.
"""


def help_text(more: Path | None = None) -> str:
    """The help, with the choices of every group; the default ones have a star."""
    defaults = default_choices()
    lines = [HEAD, "Groups (* default)"]
    for group in GROUPS:
        for place, name in enumerate(group_choices(group, more)):
            star = "*" if defaults.get(group) == name else " "
            about = summary_line(group, name, more)
            lines.append(f"  {group if place == 0 else '':<10}{star}{name:<22} {about}".rstrip())
    return "\n".join([*lines, "", TAIL])
