"""Recorded runs of flow transformers, ``flow/NAME.safetensors`` with ``.json`` beside, on tiny pipelines ``flow/tiny-*``."""

import json
import shutil
from functools import cached_property

import pytest
import torch
from safetensors.torch import load_file

from align.backbones.recipe import Recipe
from align.backbones.registry import load
from align.backbones.text import Text
from align.processes.base import Step
from align.processes.flow import flow

CPU = torch.device("cpu")
KINDS = {"sd3": ("sd3", "pair"), "flux": ("flux", "embedded"), "schnell": ("flux", "none")}
"""Layout and guidance of each kind of run."""


def names(golden, *kinds):
    """Of the recorded runs that begin so; none without a folder."""
    if golden is None:
        return []
    return sorted(path.stem for path in (golden / "flow").glob("*.json") if path.stem.startswith(kinds))


def pytest_cases(metafunc, *kinds):
    """A test's ``trace`` is each recorded run of some kinds."""
    golden = metafunc.config.getoption("--golden")
    found = names(golden, *kinds)
    cases = found or [pytest.param(None, marks=pytest.mark.skip(reason="no recorded runs: --golden DIR"))]
    metafunc.parametrize("trace", cases, indirect=True)


def pipeline(golden, kind, folder):
    """A copy of a tiny pipeline, complete: its CLIP vocabulary is that of another, and schnell has little of its own."""
    made = folder / kind
    if not made.is_dir():
        shutil.copytree(golden / "flow" / f"tiny-{'sd3' if kind == 'sd3' else 'flux'}", made)
        if kind == "schnell":
            for part in ("transformer", "scheduler"):
                shutil.rmtree(made / part)
            shutil.copytree(golden / "flow/tiny-schnell", made, dirs_exist_ok=True)
        for name in ("tokenizer", "tokenizer_2"):
            if not (made / name / "tokenizer.json").exists():
                (made / name).chmod(0o755)
                shutil.copy(golden / "tiny/tiny-sd/tokenizer/tokenizer.json", made / name)
    return made


def far(ours, recorded):
    """Largest difference over the largest magnitude of what was recorded."""
    ours, recorded = torch.as_tensor(ours), torch.as_tensor(recorded)
    return float((ours - recorded).abs().max() / recorded.abs().max())


class Trace:
    """A recorded run, and our backbone set up for it."""

    def __init__(self, golden, name, folder):
        self.golden, self.name, self.folder = golden, name, folder
        self.tensors = load_file(golden / f"flow/{name}.safetensors")
        self.facts = json.loads((golden / f"flow/{name}.json").read_text())
        # Pieces and guided runs have one set of settings, the pipelines' own runs are told by their call.
        self.settings = (
            self.facts.get("case")
            or self.facts.get("settings")
            or self.facts.get("call")
            or self.facts["config"]
        )
        self.kind = self.facts["kind"]
        self.length = self.settings.get("t5_length") or self.settings.get("max_sequence_length")

    def backbone_with(self, **options):
        layout, guidance = KINDS[self.kind]
        weights = str(pipeline(self.golden, self.kind, self.folder))
        recipe = Recipe((weights,), layout, guidance=guidance, t5=not self.facts.get("no_t5"))
        sides = self.settings["height"], self.settings["width"]
        return load(recipe, CPU, *sides, max_sequence_length=self.length, **options)

    @cached_property
    def backbone(self):
        return self.backbone_with()

    @cached_property
    def process(self):
        return flow(self.backbone.scheduler_config, len(self.facts["sigmas"]) - 1, 0.0)

    def prompts(self, name="prompt"):
        found = self.settings.get(name, "")
        return [found] if isinstance(found, str) else found

    def cond(self, which=""):
        """Recorded embeddings of the prompts, or of ``negative_`` ones."""
        first = "negative_embeds" if which else "prompt_embeds"
        return Text(self.tensors[f"cond/{first}"], self.tensors[f"cond/{which}pooled"])


def at(sigma, following=0.0):
    """A step of a flow by its levels."""
    return Step(0, 1000 * sigma, 1000 * following, 1 - sigma, sigma, 1 - following, following, 0.0, sigma, 0)
