"""Strategies on the fake world, by the options of a command."""

from fakes import CPU, FakeBackbone, FakeReward, words_graph

from align.backbones.guider import Guider
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.processes.ddim import ddim
from align.runner import build
from align.sampling.batching import Calls
from align.sampling.judge import Judge
from align.sampling.parts import Parts
from align.sampling.predict import Predict
from align.sampling.recurrence import Recurrence
from align.sampling.sampler import Request, Sampler
from align.semantics.sources import PromptGraphs, no_pairs

REQUESTS = [
    Request("red cat blue dog", seed=5),
    Request("blue dog", seed=5),
    Request("blue dog", seed=5, sample=1),
]


def config_of(*options, steps=4, eta=0):
    sampler = [f"sampler.steps={steps}", f"sampler.eta={eta}", "sampler.guidance_scale=3"]
    return jobs_of(parse([*sampler, *options]))[0].config


def built(*options, backbone=None, reward=None, batch_size=3, **sampler):
    """What the options come to on a fake backbone."""
    pairs = PromptGraphs(words_graph).pairs
    reward = reward or FakeReward()
    return build.assemble(
        config_of(*options, **sampler), backbone or FakeBackbone(), reward, pairs, Calls(batch_size), CPU
    )


def values(outcome):
    return [float(word) for word in outcome.info["values"].split()]


def sampler(reward=None, size=4, steps=3):
    backbone = FakeBackbone()
    parts = Parts(
        Predict(backbone, Guider(3.0), Calls(size)),
        Judge(backbone, Calls(size), reward or FakeReward()),
        ddim(backbone.scheduler_config, steps, 1.0),
        None,
        Recurrence("none"),
    )
    return Sampler(parts, no_pairs, CPU)
