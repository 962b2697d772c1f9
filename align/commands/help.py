"""What ``python -m align --help`` lists: verbs, and the config groups by their files, so that a new one shows by itself."""

from __future__ import annotations

from pathlib import Path

from align.commands.verbs import VERBS
from align.config.places import default_choices, group_choices, summary_line
from align.config.schema import GROUPS

HEAD = """\
align is inference-time alignment of text-to-image diffusion models: one sampling loop, many methods.

verbs (python -m align is the same as align; --help tells more of each):"""
TAIL = """\
common options (--cfg job shows all of them, with their values):
  seed=0               seed of the noise            samples=1            pictures of each prompt
  negative=""          negative prompt              prompts.limit=16     only the first prompts
  sampler.steps=25     sampling steps               run.folder=FOLDER    where results go
  run.batch_size=8     most rows of a call          run.in_flight=32     pictures made together
  run.device=auto      auto, cpu, cuda, cuda:1      run.threads=2        CPU threads
  run.shared=true      share the folder's work      run.extend=true      keep another config's rows
  run.plugins=[a.py]   rewards of your own, from a Python file that is run

exit codes:
  0 all done, 1 something failed, 2 configuration, 3 missing weights, 130 interrupted
"""


def overview(more: Path | None = None) -> str:
    """All of it; ``more`` is the user's own folder of config groups."""
    verbs = {f"align {name} {verb.arguments}": verb.summary for name, verb in VERBS.items()}
    wide = max(map(len, verbs))
    lines = [HEAD, *(f"  {words:<{wide}}  {summary}" for words, summary in verbs.items())]
    lines += ["", "groups (* default):"]
    defaults = default_choices()
    for group in GROUPS:
        for place, name in enumerate(group_choices(group, more)):
            star = "*" if defaults.get(group) == name else " "
            about = summary_line(group, name, more)
            lines.append(f"  {group if place == 0 else '':<10}{star}{name:<22} {about}".rstrip())
    return "\n".join([*lines, "", TAIL])
