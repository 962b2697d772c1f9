"""A sampler of the fake world, for strategies to wrap."""

from fakes import CPU, FakeBackbone, FakeReward

from align.backbones.guider import Guider
from align.processes.ddim import ddim
from align.sampling.batching import Calls
from align.sampling.judge import Judge
from align.sampling.parts import Parts
from align.sampling.predict import Predict
from align.sampling.recurrence import Recurrence
from align.sampling.sampler import Sampler
from align.semantics.sources import no_pairs


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
