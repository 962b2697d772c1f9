"""One reward for the gradient, another for the choice."""

import pytest
import torch
from fakes import CPU, SCHEDULE, FakeBackbone, FakeReward, counted, seeded, words_graph

from align.__main__ import main
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner import build
from align.runner.dry_run import calls_of_a_picture
from align.runner.files import Files
from align.runner.plan import identity
from align.runner.rows import optimised
from align.sampling.batching import Calls
from align.sampling.ledger import COUNTS
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs

REQUEST = Request("red cat blue dog", seed=5)
STEPS = ("sampler.steps=4", "sampler.eta=1", "sampler.guidance_scale=3")
GUIDE = "method.guide_reward.shapes_hps=1"
GUIDED = ("method=dps", "method.particles=3", "method.choose=best")
DNO = ("method=dno", "method.noise_gradient.iterations=3", "method.noise_gradient.permutations=2")


class Other(FakeReward):
    """Likes other pictures."""

    def score(self, pictures, prompts, step=None):
        pictures = counted(pictures, self.counts, "reward")
        wanted = torch.stack([seeded(f"other {prompt}", *pictures.shape[1:]) for prompt in prompts])
        return torch.tanh(pictures * wanted).flatten(1).sum(dim=1)


def config_of(*options):
    return jobs_of(parse([*STEPS, *options]))[0].config


def made(*options, reward, guide=None):
    """The outcome of one request, or of as many as are returned, and its backbone."""
    config, backbone = config_of(*options), FakeBackbone()
    pairs = PromptGraphs(words_graph).pairs
    sampler = build.assemble(config, backbone, reward, pairs, Calls(1), CPU, guide=guide)
    requests = [Request(REQUEST.prompt, seed=5, sample=k) for k in range(config.method.returned)]
    return sampler.sample(requests), backbone


def test_gradients_follow_the_one_and_the_other_chooses():
    guide, reward = Other(), FakeReward()
    particles, _ = made("method=dps", "method.particles=3", "method.returned=3", reward=guide)
    (chosen,), _ = made(*GUIDED, GUIDE, reward=reward, guide=guide)
    pictures = torch.stack([one.picture for one in particles])
    values = reward.score(pictures, [REQUEST.prompt] * 3)
    assert int(values.argmax()) != int(guide.score(pictures, [REQUEST.prompt] * 3).argmax())
    assert torch.equal(chosen.picture, pictures[values.argmax()])
    assert chosen.info["value"] == pytest.approx(float(values.max()))


def test_noise_that_follows_the_one_is_kept_by_the_other():
    guide, reward = Other(), FakeReward()
    (alone,), _ = made(*DNO, reward=guide)
    (chosen,), _ = made(*DNO, GUIDE, reward=reward, guide=guide)
    value = reward.score(chosen.picture[None], [REQUEST.prompt])
    assert float(value) == pytest.approx(chosen.info["value"], abs=1e-4)
    assert chosen.info["value"] >= float(reward.score(alone.picture[None], [REQUEST.prompt])) - 1e-4


@pytest.mark.parametrize(
    "options", [GUIDED, DNO, ("method=das", "method.particles=2")], ids=["dps", "dno", "das"]
)
def test_both_are_charged_as_they_are_asked(options):
    reward, guide = FakeReward(), Other()
    (one,), backbone = made(*options, GUIDE, reward=reward, guide=guide)
    counts = backbone.counts + reward.counts + guide.counts
    assert {what: getattr(one.cost, what) for what in COUNTS} == {what: counts[what] for what in COUNTS}
    assert reward.counts["reward_forward"] > 0 == reward.counts["reward_backward"]
    assert guide.counts["reward_backward"] > 0
    assert one.cost == calls_of_a_picture(config_of(*options, GUIDE), SCHEDULE)


def test_it_is_part_of_the_identity_and_marked_as_optimised():
    config, plain = config_of(*GUIDED, GUIDE), config_of(*GUIDED)
    files = {"shapes_pick": "a", "shapes_hps": "b"}
    told = identity(config, "", files)
    assert told.pop("guide_reward") == {"shapes_hps": {"weight": 1.0, "files": "b"}}
    assert told == identity(plain, "", files)
    assert Files(config).guiding == optimised(config) == ["shapes_hps", "shapes_pick"]
    assert config.reward_label == "shapes_pick with gradients of shapes_hps"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["method=best_of_n", GUIDE], "follows no gradient of a reward"),
        (["method=dps", GUIDE], "chooses nothing by reward=shapes_pick"),
        (
            [*GUIDED, "method.guide_reward.jpeg_compressibility=1"],
            "reward jpeg_compressibility has no gradient",
        ),
        ([*GUIDED, "method.guide_reward.shapes_hsp=1"], "did you mean shapes_hps"),
        ([*GUIDED, "method.guide_reward.shapes_hps=0"], "does nothing"),
    ],
)
def test_a_guide_that_would_do_nothing_is_refused_in_a_line(options, said, capsys):
    assert main(options) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_what_has_no_gradient_can_choose():
    assert config_of(*GUIDED, GUIDE, "reward=jpeg_compressibility").guide is not None
