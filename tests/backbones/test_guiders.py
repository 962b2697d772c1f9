"""Every guider makes of a step's outputs what diffusers' own does, passes through the network included."""

from functools import cache

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, guiders
from diffusers.hooks import HookRegistry, LayerSkipConfig, apply_layer_skip
from diffusers.hooks.smoothed_energy_guidance_utils import _gaussian_blur_2d
from diffusers.models.attention import BasicTransformerBlock
from fakes import CPU, SCHEDULE, FakeBackbone, FakeReward
from tiny import load_tiny

from align.backbones.base import Conditioning
from align.backbones.guider import Guider, Weak
from align.backbones.weakened import Weakened, altered
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.processes.ddim import ddim
from align.runner.build import assemble
from align.runner.estimate import cost_line, network_evaluations
from align.runner.guiders import guider_of as built
from align.sampling.batching import Calls
from align.sampling.sampler import Request
from align.semantics.sources import no_pairs

STEPS = 10
PROCESS = ddim(SCHEDULE, STEPS, 1).steps
MIDDLE = "mid_block.attentions.0.transformer_blocks"


@cache
def config_of(*options):
    return jobs_of(parse([f"sampler.steps={STEPS}", *options]))[0].config


def guider_of(*options, backbone=None):
    return built(config_of(*options), backbone or FakeBackbone())


THEIRS = {
    "cfg": (guiders.ClassifierFreeGuidance, {}, []),
    "cfg in an interval": (
        guiders.ClassifierFreeGuidance,
        {"start": 0.25, "stop": 0.75},
        ["guider.start=0.25", "guider.stop=0.75"],
    ),
    "apg": (guiders.AdaptiveProjectedGuidance, {"eta": 0.0}, ["guider=apg"]),
    "apg, bounded": (
        guiders.AdaptiveProjectedGuidance,
        {"eta": 0.3, "adaptive_projected_guidance_rescale": 2.0, "start": 0.1},
        ["guider=apg", "guider.parallel=0.3", "guider.norm=2", "guider.start=0.1"],
    ),
    "cfg_zero_star": (
        guiders.ClassifierFreeZeroStarGuidance,
        {"zero_init_steps": 2, "stop": 0.5},
        ["guider=cfg_zero_star", "guider.zero_steps=2", "guider.stop=0.5"],
    ),
    "tcfg": (guiders.TangentialClassifierFreeGuidance, {}, ["guider=tcfg"]),
    "mambo_g": (guiders.MagnitudeAwareGuidance, {"alpha": 3.0}, ["guider=mambo_g", "guider.damping=3"]),
    "slg": (guiders.SkipLayerGuidance, {"skip_layer_guidance_layers": [7], "skip_layer_guidance_stop": 0.5}, [
        "guider=slg", "guider.weak_stop=0.5",
    ]),
    "pag": (
        guiders.PerturbedAttentionGuidance,
        {
            "perturbed_guidance_layers": [7], "perturbed_guidance_scale": 2.0,
            "perturbed_guidance_start": 0.2, "perturbed_guidance_stop": 1.0,
        },
        ["guider=pag", "guider.weak_scale=2", "guider.weak_start=0.2"],
    ),
    "seg": (
        guiders.SmoothedEnergyGuidance,
        {
            "seg_guidance_layers": [7], "seg_guidance_scale": 3.0,
            "seg_guidance_start": 0.0, "seg_guidance_stop": 1.0,
        },
        ["guider=seg"],
    ),
}  # fmt: skip


def outputs(rows=3):
    own, other, weak = torch.randn(3, rows, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    return own, 0.7 * own + 0.5 * other, 0.8 * own + 0.2 * weak


def given(guider, step, own, other, weak):
    """What a backbone that leaves out whatever is not asked for has."""
    return step, own, other if guider.pairs(step) else None, weak if guider.weakens(step) else None


@pytest.mark.parametrize("rescale", [0.0, 0.6])
@pytest.mark.parametrize("name", THEIRS)
def test_each_equals_diffusers_own_at_every_step_with_its_gradient(name, rescale):
    kind, options, ours = THEIRS[name]
    guider = guider_of("sampler.guidance_scale=4", f"sampler.guidance_rescale={rescale}", *ours)
    theirs = kind(guidance_scale=4.0, guidance_rescale=rescale, **options)
    three = outputs()
    seen = set()
    for step in PROCESS:
        theirs.set_state(step.index, STEPS, step.time)
        leaves = [[one.clone().requires_grad_() for one in three] for _ in range(2)]
        found = guider(*given(guider, step, *leaves[0]))
        wide = [one.flatten(2) for one in leaves[1]]  # for the one that takes matrix norms
        wanted = theirs.forward(*wide[: len(theirs._input_predictions)]).pred.view_as(found)
        if step.index < guider.zero_steps:
            assert not found.any()  # Where diffusers divides 0 by 0 to rescale it.
            continue
        torch.testing.assert_close(found, wanted)
        slopes = [
            torch.autograd.grad(one.square().sum(), mine, allow_unused=True)
            for one, mine in ((found, leaves[0]), (wanted, leaves[1]))
        ]
        for mine, its in zip(*slopes, strict=True):
            if its is not None:
                torch.testing.assert_close(torch.zeros_like(its) if mine is None else mine, its)
        pair, further = (one is not None for one in slopes[0][1:])
        assert guider.calls(step) == (1 if pair or guider.scale == 1 else 0.5) + further
        seen.add(tuple(one is not None for one in slopes[0]))
    assert any(which[1] for which in seen)  # The pair has a part,
    assert any(which[2] for which in seen) == (len(theirs._input_predictions) == 3)  # and a further pass.


@pytest.mark.parametrize("name", THEIRS)
def test_rows_of_a_call_do_not_influence_each_other_nor_later_calls(name):
    guider = guider_of("sampler.guidance_scale=4", *THEIRS[name][2])
    own, other, weak = outputs(5)
    first, step = PROCESS[1], PROCESS[4]
    whole = guider(*given(guider, step, own, other, weak))
    guider(*given(guider, first, 3 * other, own, weak))
    for rows in ([2], [4, 0]):
        some = guider(*given(guider, step, own[rows], other[rows], weak[rows]))
        assert torch.equal(some, whole[rows])


def test_zero_init_is_of_flows():
    class Flow(FakeBackbone):
        def __init__(self):
            super().__init__()
            self.scheduler_config["prediction_type"] = "velocity"

    assert guider_of("guider=cfg_zero_star").zero_steps == 0
    assert guider_of("guider=cfg_zero_star", backbone=Flow()).zero_steps == 1
    assert guider_of("guider=cfg_zero_star", "guider.zero_steps=3", backbone=Flow()).zero_steps == 3


# ---------------------------------------------------------------- weaker networks


@pytest.fixture
def unet(pipeline_folder):
    return load_tiny(pipeline_folder, height=32, width=32)


def batch(unet, *prompts):
    conditioning = Conditioning.of([unet.encode(prompt, "") for prompt in prompts])
    z = torch.randn(len(prompts), *unet.latent_shape(), generator=torch.Generator().manual_seed(1))
    return z, conditioning


def hooked(network, call, **skipped):
    """What a network puts out under diffusers' own hook."""
    apply_layer_skip(network, LayerSkipConfig(**skipped))
    try:
        return call()
    finally:
        HookRegistry.check_if_exists_or_initialize(network).remove_hook("layer_skip_hook", recurse=True)


ATTENTION = {"skip_attention": False, "skip_ff": False, "skip_attention_scores": True}


@pytest.mark.parametrize("kind", ["skip", "identity"])
@pytest.mark.parametrize("stack", [MIDDLE, "up_blocks.0.attentions.1.transformer_blocks"])
def test_a_weaker_unet_is_that_of_diffusers_hooks(unet, kind, stack):
    z, conditioning = batch(unet, "red cat", "dog")

    def call():
        return unet.unet(z, 500, conditioning.prompt).sample

    with torch.no_grad():
        plain = call()
        more = ATTENTION if kind == "identity" else {}
        wanted = hooked(unet.unet, call, indices=[0], fqn=stack, **more)
        with unet.weakened.switched(Weak(kind, stack)):
            found = call()
        torch.testing.assert_close(found, wanted)
        assert (found - plain).abs().max() > 1e-4
        assert torch.equal(call(), plain)


def test_queries_all_blurred_are_their_mean():
    """diffusers' own blur, in the branch of endless blur of the published program."""
    query = torch.randn(2, 25, 8, generator=torch.Generator().manual_seed(0))
    attention = torch.nn.Linear(8, 8)
    wanted = _gaussian_blur_2d(attention(query).detach(), 3, 1.0, 9999.0)

    block = BasicTransformerBlock(8, 2, 4, cross_attention_dim=8)
    block.attn1.to_q = attention
    holder = torch.nn.Module()
    holder.blocks = torch.nn.ModuleList([block])
    with Weakened(holder).switched(Weak("mean", "blocks", (0,))):
        torch.testing.assert_close(block.attn1.to_q(query), wanted)
    assert (block.attn1.to_q(query) - wanted).abs().max() > 0.1


def sd3(layers=4):
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=layers, attention_head_dim=8,
        num_attention_heads=2, caption_projection_dim=16, joint_attention_dim=16, pooled_projection_dim=16,
        pos_embed_max_size=8,
    )  # fmt: skip
    z, text, pooled = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16), torch.randn(2, 16)

    def call(**more):
        return network(z, text, pooled, torch.tensor([500.0, 500.0]), **more).sample

    return network.eval(), call


def flux():
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        in_channels=4, num_layers=3, num_single_layers=3, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    z, text, pooled = torch.randn(2, 16, 4), torch.randn(2, 5, 16), torch.randn(2, 16)
    rows = {"img_ids": torch.zeros(16, 3), "txt_ids": torch.zeros(5, 3)}

    def call():
        return network(z, text, pooled, torch.tensor([0.5, 0.5]), **rows).sample

    return network.eval(), call


@torch.no_grad()
def test_stable_diffusion_3_without_blocks_is_that_of_its_own_argument():
    network, call = sd3()
    for layers in ((1,), (0, 2), (3,)):
        with Weakened(network).switched(Weak("skip", None, layers)):
            found = call()
        torch.testing.assert_close(found, call(skip_layers=list(layers)))
        assert (found - call()).abs().max() > 1e-4


@pytest.mark.parametrize("made", [sd3, flux])
@torch.no_grad()
def test_a_transformer_without_blocks_is_one_that_never_had_them(made):
    network, call = made()
    for stack in [name for name in ("transformer_blocks", "single_transformer_blocks") if hasattr(network, name)]:  # fmt: skip
        with Weakened(network).switched(Weak("skip", stack, (1,))):
            found = call()
        blocks = getattr(network, stack)
        setattr(network, stack, torch.nn.ModuleList([blocks[0], *blocks[2:]]))
        torch.testing.assert_close(found, call())
        setattr(network, stack, blocks)


@pytest.mark.parametrize("made", [sd3, flux])
@torch.no_grad()
def test_joint_attention_that_is_blind_gives_each_place_its_own_value(made, monkeypatch):
    network, call = made()
    stacks = [name for name in ("transformer_blocks", "single_transformer_blocks") if hasattr(network, name)]
    every = [Weak("identity", stack, tuple(range(len(getattr(network, stack))))) for stack in stacks]
    weaker = Weakened(network), Weakened(network)
    for one, weak in zip(weaker, every, strict=False):
        one.switch(weak)
    found = call()
    for one in reversed(weaker[: len(every)]):
        one.switch(None)
    plain = call()
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda query, key, value, *_, **__: value
    )
    torch.testing.assert_close(found, call())
    assert (found - plain).abs().max() > 1e-4


def test_usual_blocks_are_those_of_the_published_ratio():
    for depth, usual in ((24, [7, 8, 9]), (38, [11, 13, 14]), (8, [2, 3]), (2, [1])):
        holder = torch.nn.Module()
        holder.transformer_blocks = torch.nn.ModuleList(sd3(1)[0].transformer_blocks[0] for _ in range(depth))
        chosen = {id(module) for module, _ in altered(holder, Weak("skip"))}
        assert [k for k, one in enumerate(holder.transformer_blocks) if id(one) in chosen] == usual


@pytest.mark.parametrize(
    ("weak", "words"),
    [
        (Weak("skip", "blocks"), "guider.stack=blocks is no list of blocks .* transformer_blocks"),
        (Weak("skip", None, (1, 9)), r"guider.layers=\[1,9\] .* 0 to 3"),
        (Weak("skip", None, ()), r"guider.layers=\[\] "),
    ],
)
def test_blocks_that_are_not_there_are_an_error(weak, words):
    with pytest.raises(ValueError, match=words):
        list(altered(sd3()[0], weak))


def test_queries_of_text_and_picture_together_are_not_blurred():
    with pytest.raises(ValueError, match=r"guider=seg .* give guider=pag"):
        list(altered(flux()[0], Weak("mean", "single_transformer_blocks")))


# ---------------------------------------------------------------- calls


@pytest.mark.parametrize("name", ["slg", "pag", "seg"])
def test_a_further_pass_is_the_prompts_alone_and_has_no_part_in_maps(unet, name):
    z, conditioning = batch(unet, "red cat", "dog")
    guider = guider_of(f"guider={name}", "guider.weak_stop=1")
    rows = []
    handle = unet.unet.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    first, later = (unet.predict(z, step, conditioning, guider, attention="both") for step in PROCESS[:2])
    handle.remove()
    assert rows == [4, 4, 2]
    plain = unet.predict(z, PROCESS[1], conditioning, guider_of(), attention="both")
    for same in ("correction", "attention"):
        torch.testing.assert_close(getattr(later, same), getattr(plain, same))
    with unet.weakened.switched(guider.weak):
        weak = unet.unet(z, PROCESS[1].time, conditioning.prompt).sample
    own = unet.unet(z, PROCESS[1].time, conditioning.prompt).sample
    torch.testing.assert_close(
        later.eps, plain.eps + config_of(f"guider={name}").guider.weak_scale * (own - weak)
    )
    assert (later.eps - plain.eps).abs().max() > 1e-5
    assert torch.equal(first.eps, unet.predict(z, PROCESS[0], conditioning, guider_of(), "both").eps)


@pytest.mark.parametrize("name", ["slg", "pag", "seg"])
def test_recomputed_blocks_are_as_weak_as_they_were(pipeline_folder, name):
    slopes = []
    for checkpointing in (False, True):
        unet = load_tiny(pipeline_folder, height=32, width=32, checkpointing=checkpointing)
        z, conditioning = batch(unet, "red cat", "dog")
        z.requires_grad_()
        guider = guider_of(f"guider={name}", "guider.weak_stop=1", "guider.weak_scale=50")
        found = unet.predict(z, PROCESS[3], conditioning, guider)
        for _ in range(2):  # A graph can be walked back again.
            (slope,) = torch.autograd.grad(found.x0.square().sum(), z, retain_graph=True)
        slopes.append(slope)
    torch.testing.assert_close(*slopes)


def test_outside_of_its_interval_guidance_leaves_the_negative_half_out(unet):
    z, conditioning = batch(unet, "red cat")
    guider = guider_of("guider.start=0.2", "guider.stop=0.5")
    rows = []
    handle = unet.unet.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    made = [unet.predict(z, step, conditioning, guider, correction=False) for step in PROCESS]
    handle.remove()
    assert rows == [1, 1, 2, 2, 2, 1, 1, 1, 1, 1]
    read = unet.predict(z, PROCESS[0], conditioning, guider)
    torch.testing.assert_close(read.eps, made[0].eps)
    assert read.correction.any()
    assert not made[0].correction.any()


@pytest.mark.parametrize(
    "options",
    [
        ["method=none"],
        ["method=best_of_n", "method.particles=3"],
        ["method=svdd", "sampler.eta=1", "method.search.candidates=2"],
        ["method=svdd", "sampler.eta=1", "method.search.candidates=2", "method.value.estimate=looks"],
        ["method=dps", "sampler.eta=1"],
    ],
    ids=lambda options: " ".join(options[:1] + options[3:]),
)
def test_a_further_pass_is_charged_and_predicted(options):
    config = config_of("guider=slg", "guider.weak_stop=0.5", *options)
    backbone, reward = FakeBackbone(), FakeReward() if config.method.uses_reward else None
    (made,) = assemble(config, backbone, reward, no_pairs, Calls(1), CPU).sample([Request("red cat", seed=1)])
    assert made.error is None
    assert network_evaluations(config) == (made.cost.network_forward,) * 2
    assert made.cost.network_forward == backbone.counts["network_forward"]
    assert made.cost.network_backward == backbone.counts["network_backward"]
    assert ", 4 steps with a further pass (slg); " in cost_line(config, 1)


@pytest.mark.parametrize(
    ("options", "halves"),
    [
        (["method=none"], 2),
        (["method=best_of_n", "method.particles=3"], 6),
        (["method=dps", "sampler.eta=1"], 2),
        (["method=local_search", "method.local_search.begin=[0.5,0.5,0.75]"], 31),
        (["method=ugd", "sampler.eta=1"], 0),
    ],
    ids=lambda options: options[0] if isinstance(options, list) else "",
)
def test_where_the_pair_is_left_out_half_an_evaluation_is_charged(options, halves):
    """But where its correction is read: there it goes through all the same."""
    config = config_of(
        "guider=cfg_interval", "sampler.steps=4", "guider.start=0.25", "guider.stop=0.75", *options
    )
    backbone, reward = FakeBackbone(), FakeReward() if config.method.uses_reward else None
    (made,) = assemble(config, backbone, reward, no_pairs, Calls(1), CPU).sample([Request("red cat", seed=1)])
    assert network_evaluations(config)[1] == made.cost.network_forward == backbone.counts["network_forward"]
    assert made.cost.network_backward == backbone.counts["network_backward"]
    usual = assemble(
        config_of("sampler.steps=4", *options), FakeBackbone(), reward, no_pairs, Calls(1), CPU
    ).sample([Request("red cat", seed=1)])[0]
    assert usual.cost.network_forward - made.cost.network_forward == halves / 2


@pytest.mark.parametrize("name", THEIRS)
def test_pictures_of_a_batch_are_those_made_alone(name):
    config = config_of("sampler.guidance_scale=4", *THEIRS[name][2])
    sampler = assemble(config, FakeBackbone(), None, no_pairs, Calls(2), CPU)
    requests = [Request(prompt, seed=3) for prompt in ("red cat", "blue dog", "a quiet morning")]
    for request, together in zip(requests, sampler.sample(requests), strict=True):
        (alone,) = sampler.sample([request])
        assert together.error is None
        assert torch.equal(alone.picture, together.picture)


def test_a_guider_without_a_pair_is_the_prompts_own_output():
    own, _, weak = outputs()
    assert torch.equal(Guider(1.0)(PROCESS[0], own, None), own)
    assert not Guider(1.0).pairs(PROCESS[0])
    apart = guider_of("guider=pag", "sampler.guidance_scale=1")
    torch.testing.assert_close(apart(PROCESS[3], own, None, weak), weak + 3 * (own - weak))
