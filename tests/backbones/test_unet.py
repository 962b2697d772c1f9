"""A diffusers pipeline as a denoiser, on a random two-level UNet."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from fakes import SCHEDULE
from tiny import LONGEST, load_tiny

from align.backbones.attention import Recorder, cross_attention_layers
from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.errors import WrongWeights
from align.processes.ddim import ddim
from align.text import readable

CPU = torch.device("cpu")
STEP = ddim(SCHEDULE, 10, 1).steps[4]


@pytest.fixture(scope="module")
def folder(pipeline_folder):
    return pipeline_folder


@pytest.fixture
def unet(folder):
    return load_tiny(folder, height=32, width=32)


def batch(unet, *prompts):
    read = [unet.encode(prompt, "") for prompt in prompts]
    conditioning = Conditioning.of(read)
    z = torch.randn(len(prompts), *unet.latent_shape(), generator=torch.Generator().manual_seed(1))
    return z, conditioning


def test_latents_have_the_pictures_proportions(folder):
    assert load_tiny(folder, height=32, width=48).latent_shape() == (4, 8, 12)


def test_guidance_weighs_the_halves_of_one_call(unet):
    z, conditioning = batch(unet, "red cat")
    none, one, two = (unet.predict(z, STEP, conditioning, Guider(scale)) for scale in (0, 1, 2))
    torch.testing.assert_close(one.eps - none.eps, one.correction)
    torch.testing.assert_close(two.eps, none.eps + 2 * one.correction)
    raw = unet.unet(z, STEP.time, conditioning.prompt).sample
    torch.testing.assert_close(one.eps, raw)
    torch.testing.assert_close(STEP.a * two.x0 + STEP.s * two.eps, z)


def test_at_scale_one_the_negative_half_goes_through_for_those_who_read_it_alone(unet):
    z, conditioning = batch(unet, "red cat", "dog")
    rows = []
    handle = unet.unet.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    pair = unet.predict(z, STEP, conditioning, Guider(1), attention="prompt")
    alone = unet.predict(z, STEP, conditioning, Guider(1, 0.7), attention="prompt", correction=False)
    unet.predict(z, STEP, conditioning, Guider(1), attention="both", correction=False)
    unet.predict(z, STEP, conditioning, Guider(2), correction=False)
    handle.remove()
    assert rows == [4, 2, 4, 4]
    for name in ("eps", "x0", "attention"):
        torch.testing.assert_close(getattr(alone, name), getattr(pair, name))
    assert pair.correction.abs().max() > 0
    assert not alone.correction.any()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_all_ways_of_predicting_agree_on_what_z_is(folder, kind):
    unet = load_tiny(folder, height=32, width=32)
    unet.scheduler_config["prediction_type"] = kind
    z, conditioning = batch(unet, "red cat")
    one, two = (unet.predict(z, STEP, conditioning, Guider(scale)) for scale in (1, 2))
    torch.testing.assert_close(STEP.a * two.x0 + STEP.s * two.eps, z)
    torch.testing.assert_close(two.eps - one.eps, one.correction)


def test_reading_attention_changes_nothing_and_leaves_nothing_behind(unet):
    z, conditioning = batch(unet, "red cat", "dog")
    plain = unet.predict(z, STEP, conditioning, Guider(3))
    read = unet.predict(z, STEP, conditioning, Guider(3), attention="both")
    assert plain.attention is None
    torch.testing.assert_close(read.eps, plain.eps)
    assert unet.probe.reading == (False, None)
    assert torch.equal(unet.predict(z, STEP, conditioning, Guider(3)).eps, plain.eps)


def test_the_probe_is_closed_when_a_call_fails(unet):
    with pytest.raises(ZeroDivisionError), unet.probe.switched(on=True):
        raise ZeroDivisionError
    assert not unet.probe.reading.on


def test_no_call_walks_through_the_network_to_find_its_parts(folder, monkeypatch):
    """diffusers' networks have thousands of modules."""
    unet = load_tiny(folder, height=32, width=32, checkpointing=True)
    z, conditioning = batch(unet, "red cat")
    z.requires_grad_()
    monkeypatch.setattr(torch.nn.Module, "named_modules", None)
    found = unet.predict(z, STEP, conditioning, Guider(3), attention="both")
    (found.attention.sum() + unet.decode(found.x0).sum()).backward()


def test_logits_are_scaled_before_they_are_rounded():
    """In half precision those of large keys overflow otherwise."""
    attention = Attention(64, 64, heads=1, dim_head=64, bias=False).half()
    for layer in (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]):
        torch.nn.init.eye_(layer.weight)
    maps = []
    one = torch.full((1, 2, 64), 40.0, dtype=torch.float16)
    two = torch.cat([one[:, :1], one[:, :1] / 2], dim=1)
    Recorder(maps.append)(attention, one, two)
    assert float(one[0, 0] @ two[0, 0]) == torch.inf
    torch.testing.assert_close(maps[0], torch.tensor([[[1.0, 0.0]] * 2]))


@pytest.mark.parametrize(("stride", "sides"), [(1, (8, 12)), (2, (4, 6))])
def test_maps_have_the_resolution_asked_for_and_sum_to_one(folder, stride, sides):
    unet = load_tiny(folder, height=32, width=48, attention_stride=stride)
    z, conditioning = batch(unet, "red cat", "dog")
    maps = unet.predict(z, STEP, conditioning, Guider(3), attention="prompt").attention
    assert maps.shape == (2, *sides, LONGEST)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, *sides))


def test_odd_latents_round_the_maps_sides_up(folder):
    unet = load_tiny(folder, height=36, width=44, attention_stride=2)
    z, conditioning = batch(unet, "red cat")
    assert unet.predict(z, STEP, conditioning, Guider(3), attention="both").attention.shape == (
        1,
        5,
        6,
        LONGEST,
    )


def test_both_halves_average_the_prompts_and_the_negatives_maps(unet):
    z, conditioning = batch(unet, "red cat")
    prompt = unet.predict(z, STEP, conditioning, Guider(3), attention="prompt").attention
    negative = unet.predict(
        z, STEP, Conditioning(conditioning.negative, conditioning.prompt), Guider(3), attention="prompt"
    ).attention
    both = unet.predict(z, STEP, conditioning, Guider(3), attention="both").attention
    torch.testing.assert_close(both, (prompt + negative) / 2)


def test_each_layers_own_probabilities_are_averaged(unet):
    """Against query and key computed apart, by hooks."""
    z, conditioning = batch(unet, "red cat")
    collected = []

    def hook(module, inputs, keywords, output):
        states = keywords["encoder_hidden_states"]
        heads = module.heads
        query = module.to_q(inputs[0]).unflatten(-1, (heads, -1)).transpose(1, 2)
        key = module.to_k(states).unflatten(-1, (heads, -1)).transpose(1, 2)
        collected.append(torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, -1).mean(1))

    layers = cross_attention_layers(unet.unet)
    assert sorted(layers) == [1, 2]
    handles = [module.register_forward_hook(hook, with_kwargs=True) for module in layers[1]]
    unet.predict(z, STEP, conditioning, Guider(3))
    for handle in handles:
        handle.remove()
    expected = torch.stack(collected).mean(0).chunk(2)[1].unflatten(1, (8, 8))
    maps = unet.predict(z, STEP, conditioning, Guider(3), attention="prompt").attention
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_resolution_is_an_error(folder):
    with pytest.raises(WrongWeights, match=r"attention_stride=16 .*: give 1, 2$"):
        load_tiny(folder, height=32, width=32, attention_stride=16)


def test_gradients_reach_the_latents_through_network_maps_and_decoder(unet):
    z, conditioning = batch(unet, "red cat")
    z.requires_grad_()
    found = unet.predict(z, STEP, conditioning, Guider(3), attention="both")
    for value in (found.attention[..., 1].square(), unet.decode(found.x0)):
        (gradient,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
        assert gradient.abs().max() > 0


def test_pictures_are_half_the_decoders_output_plus_a_half_not_clamped(unet):
    z = 30 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = unet.decode(z)
    raw = unet.vae.decode(z / unet.vae.config.scaling_factor).sample
    torch.testing.assert_close(picture, raw / 2 + 0.5)
    assert picture.shape == (1, 3, 32, 32)


def test_a_prompt_is_read_alone_and_once(unet):
    first = unet.encode("red cat", "")
    unet.encode("a much longer prompt", "")
    assert unet.encode("red cat", "") is first
    assert torch.equal(first.negative, unet.encode("", "").prompt)


def test_words_are_found_by_character_and_truncation_is_told(unet):
    read = unet.encode("ab cd", "")
    assert read.offsets[:6] == ((0, 0), (0, 1), (1, 2), (3, 4), (4, 5), (0, 0))
    assert (read.limit, read.truncated, len(read.offsets)) == (5, False, LONGEST)
    cut = unet.encode("abcdefghijklmnop", "")
    assert (cut.limit, cut.truncated, len(cut.offsets)) == (LONGEST - 1, True, LONGEST)
    full = unet.encode("abcdefghij", "")
    assert (full.limit, full.truncated) == (LONGEST - 1, False)


def test_a_lone_surrogate_is_read_as_a_question_mark(unet):
    assert readable("a \ud800 b") == "a ? b"
    assert torch.equal(unet.encode("a \udfff", "").prompt, unet.encode("a ?", "").prompt)


@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
def test_guidance_can_be_rescaled_as_diffusers_does(rescale):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    own, other = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = Guider(7.5, rescale)(STEP, own, other)
    theirs = rescale_noise_cfg(other + 7.5 * (own - other), own, rescale)
    torch.testing.assert_close(ours, theirs)
