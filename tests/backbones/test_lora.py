"""Low-rank updates in every naming, merged as they say or refused by name."""

import json

import pytest
import torch
from hub_box import sd_unet, text_encoder, write_sd
from safetensors.torch import save_file

from align.backbones.lora import merge
from align.backbones.recipe import Recipe
from align.backbones.registry import load
from align.errors import WrongWeights

CPU = torch.device("cpu")
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
FLAT = ATTENTION.replace(".", "_")
TO_Q, TO_OUT, CONV = f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0", "down_blocks.0.resnets.0.conv1"
MLP = "encoder.layers.1.mlp.fc1"
RANK = 2


@pytest.fixture
def modules():
    return {"unet": sd_unet(1), "text_encoder": text_encoder(1, 16)}


@pytest.fixture
def write(tmp_path):
    """Write a LoRA file: tensors, what diffusers keeps in its header, and its name."""

    def written(state, facts=None, name="lora.safetensors"):
        header = {"format": "pt"} | ({} if facts is None else {"lora_adapter_metadata": json.dumps(facts)})
        save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / name, header)
        return tmp_path / name

    return written


def weights(modules):
    return {
        f"{part}.{name}": value.clone()
        for part, one in modules.items()
        for name, value in one.state_dict().items()
    }


def factors(weight, seed=0, rank=RANK):
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, *weight.shape[1:], generator=generator)
    up = torch.randn(len(weight), rank, *[1] * (weight.ndim - 2), generator=generator)
    return down, up


def pair(modules, place, down="lora_A.weight", up="lora_B.weight", name=None, rank=RANK):
    """The two tensors of an update of rank 2 of the layer at ``place``, and its product."""
    part, _, layer = place.partition(".")
    a, b = factors(modules[part].get_submodule(layer).weight, rank=rank)
    product = (b.flatten(1) @ a.flatten(1)).reshape(len(b), *a.shape[1:])
    name = place if name is None else name
    return {f"{name}.{down}": a, f"{name}.{up}": b}, product


LINEAR = ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")
PLAIN = ("lora.down.weight", "lora.up.weight")
KOHYA = ("lora_down.weight", "lora_up.weight")
NAMES = {
    "peft": (f"unet.{TO_Q}", "lora_A.weight", "lora_B.weight", None),
    "peft with its adapter's name": (f"unet.{TO_Q}", "lora_A.default.weight", "lora_B.default.weight", None),
    "plain": (f"unet.{TO_Q}", *PLAIN, None),
    "a convolution": (f"unet.{CONV}", *PLAIN, None),
    "processor": (
        f"unet.{TO_Q}",
        "to_q_lora.down.weight",
        "to_q_lora.up.weight",
        f"unet.{ATTENTION}.processor",
    ),
    "processor without prefix, output": (
        f"unet.{TO_OUT}",
        "to_out_lora.down.weight",
        "to_out_lora.up.weight",
        f"{ATTENTION}.processor",
    ),
    "kohya": (f"unet.{TO_Q}", *KOHYA, f"lora_unet_{FLAT}_to_q"),
    "kohya, a convolution": (f"unet.{CONV}", *KOHYA, "lora_unet_" + CONV.replace(".", "_")),
    "kohya, text": (f"text_encoder.{MLP}", *KOHYA, "lora_te_text_model_encoder_layers_1_mlp_fc1"),
    "kohya, text's attention": (
        "text_encoder.encoder.layers.0.self_attn.q_proj",
        *KOHYA,
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    ),
    "peft, text": (f"text_encoder.{MLP}", "lora_A.weight", "lora_B.weight", f"text_encoder.text_model.{MLP}"),
    "plain, text": (f"text_encoder.{MLP}", *LINEAR, f"text_encoder.text_model.{MLP}"),
}


@pytest.mark.parametrize("names", NAMES)
def test_every_naming_gives_the_same_update(names, modules, write):
    place, down, up, name = NAMES[names]
    before = weights(modules)
    state, product = pair(modules, place, down, up, name)
    merge(write(state), modules)
    after = weights(modules)
    assert after.keys() == before.keys()
    assert [name for name in after if not torch.equal(after[name], before[name])] == [f"{place}.weight"]
    torch.testing.assert_close(after[f"{place}.weight"], before[f"{place}.weight"] + product)


KOHYA_NAME = f"lora_unet_{FLAT}_to_q"


@pytest.mark.parametrize(
    ("name", "more", "facts", "scale"),
    [
        (None, {f"unet.{TO_Q}.alpha": torch.tensor(6.0)}, None, 3.0),
        (KOHYA_NAME, {f"{KOHYA_NAME}.alpha": torch.tensor(6.0)}, None, 3.0),
        (None, {}, {"unet.r": 2, "unet.lora_alpha": 1}, 0.5),
        (None, {}, {"unet.r": 2, "unet.lora_alpha": 1, "unet.alpha_pattern": {"attn1.to_q": 8}}, 4.0),
        (None, {}, {"unet.r": 4, "unet.lora_alpha": 1, "unet.rank_pattern": {f"^{TO_Q}": 2}}, 0.5),
        (None, {}, {"unet.r": 2, "unet.lora_alpha": 4, "unet.use_rslora": True}, 4 / 2**0.5),
        (None, {}, None, 1.0),
    ],
    ids=[
        "alpha",
        "kohya's alpha",
        "described",
        "alpha_pattern",
        "rank_pattern",
        "use_rslora",
        "nothing said",
    ],
)
def test_the_scale_is_what_the_file_says(name, more, facts, scale, modules, write):
    kinds = KOHYA if name else ("lora_A.weight", "lora_B.weight")
    state, product = pair(modules, f"unet.{TO_Q}", *kinds, name)
    before = weights(modules)[f"unet.{TO_Q}.weight"]
    merge(write({**state, **more}, facts), modules)
    torch.testing.assert_close(weights(modules)[f"unet.{TO_Q}.weight"], before + scale * product)


def test_every_layer_has_its_own_rank_and_alpha(modules, write):
    places = {
        f"lora_unet_{FLAT}_to_q": (f"unet.{TO_Q}", 2, 4.0),
        f"lora_unet_{FLAT}_to_k": (f"unet.{ATTENTION}.to_k", 4, None),
    }
    before, state, updates = weights(modules), {}, {}
    for name, (place, rank, alpha) in places.items():
        mine, product = pair(modules, place, *KOHYA, name, rank)
        state |= mine | ({} if alpha is None else {f"{name}.alpha": torch.tensor(alpha)})
        updates[f"{place}.weight"] = product * (1 if alpha is None else alpha / rank)
    merge(write(state), modules)
    after = weights(modules)
    for name, update in updates.items():
        torch.testing.assert_close(after[name], before[name] + update)


def test_a_text_encoders_patterns_may_have_the_old_names(modules, write):
    state, product = pair(modules, f"text_encoder.{MLP}")
    facts = {"r": 2, "lora_alpha": 2, "alpha_pattern": {f"text_model.{MLP}": 6}}
    before = weights(modules)[f"text_encoder.{MLP}.weight"]
    merge(write(state, {f"text_encoder.{key}": value for key, value in facts.items()}), modules)
    torch.testing.assert_close(weights(modules)[f"text_encoder.{MLP}.weight"], before + 3 * product)


def test_a_magnitude_scales_the_directions(modules, write):
    state, product = pair(modules, f"unet.{TO_Q}")
    before = weights(modules)[f"unet.{TO_Q}.weight"]
    magnitude = torch.linspace(1, 2, len(before))
    merge(write({**state, f"unet.{TO_Q}.lora_magnitude_vector": magnitude}), modules)
    sum_ = before + product
    wanted = magnitude[:, None] * sum_ / sum_.norm(dim=1, keepdim=True)
    torch.testing.assert_close(weights(modules)[f"unet.{TO_Q}.weight"], wanted)


def test_pefts_own_files(modules, write, tmp_path):
    state, product = pair(modules, f"unet.{TO_Q}", name=f"base_model.model.{TO_Q}")
    before = weights(modules)[f"unet.{TO_Q}.weight"]
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 5}))
    merge(write(state, name="adapter_model.safetensors"), modules)
    torch.testing.assert_close(weights(modules)[f"unet.{TO_Q}.weight"], before + 2.5 * product)
    with pytest.raises(ValueError, match=r"with adapter_config\.json beside it"):
        merge(write(state), modules)


def test_the_sum_is_rounded_once(modules, write):
    state, product = pair(modules, f"unet.{TO_Q}")
    before = modules["unet"].bfloat16().get_submodule(TO_Q).weight.float()
    merge(write(state), modules)
    after = modules["unet"].get_submodule(TO_Q).weight
    assert torch.equal(after, (before + product).bfloat16())


def test_merging_draws_no_random_numbers(modules, write):
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    merge(write(pair(modules, f"unet.{TO_Q}")[0]), modules)
    assert torch.equal(torch.rand(1), wanted)


A, B = f"unet.{TO_Q}.lora_A.weight", f"unet.{TO_Q}.lora_B.weight"
GOOD = {A: (2, 8), B: (8, 2)}


@pytest.mark.parametrize(
    ("state", "facts", "words"),
    [
        ({}, None, "holds nothing"),
        ({"unet.conv_in.weight": (8, 4, 3, 3)}, None, "unet.conv_in.weight"),
        ({**GOOD, "lora_unet_x.hada_w1_a": (2, 8)}, None, "hada_w1_a, which is no low-rank update"),
        ({"lora_unet_x.lora_down.weight": (2, 8), "lora_unet_x.dora_scale": (8,)}, None, "dora_scale"),
        (
            {"lora_unet_x.lora_down.weight": (2, 8), "lora_unet_x.lora_up.weight": (8, 2)},
            None,
            "unet.x|x is no layer",
        ),
        ({"lora_unet_x.lora_down.weight": (2, 8)}, None, r"lacks lora_unet_x\.lora_up\.weight"),
        ({"lora_te2_x.lora_down.weight": (2, 8), "lora_te2_x.lora_up.weight": (8, 2)}, None, "lora_te2_x"),
        ({**GOOD, "text_encoder_2.x.lora_A.weight": (2, 8)}, None, "text_encoder_2.*of no module"),
        (
            {"unet.nothing.lora_A.weight": (2, 8), "unet.nothing.lora_B.weight": (8, 2)},
            None,
            "nothing is no layer of the unet",
        ),
        ({A: (2, 8)}, None, r"lacks unet\..*to_q\.lora_B\.weight"),
        (
            {A: (2, 9), B: (8, 2)},
            None,
            r"is for another model: .*to_q\.lora_A\.weight is \(2, 9\) and not \(2, 8\)",
        ),
        ({**GOOD, f"unet.{TO_Q}.lora.down.weight": (2, 8)}, None, "two tensors for one place"),
        (GOOD, {"unet.r": 4, "unet.lora_alpha": 4}, r"\(2, 8\) and not \(4, 8\)"),
        (GOOD, {"unet.r": 2, "unet.alpha_pattern": {"to_z": 1}}, "alpha_pattern names to_z"),
        (GOOD, {"unet.r": 2, "unet.use_dora": True}, "lora_magnitude_vector"),
        (GOOD, {"unet.r": 2, "unet.init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        (GOOD, {"unet.r": 2, "unet.from_tomorrow": 1}, "from_tomorrow"),
        (GOOD, {"transformer.r": 2}, "transformer.r is of no module"),
        ({**GOOD, f"unet.{TO_Q}.alpha": ()}, {"unet.r": 2}, "alphas of its own"),
        (GOOD, {"unet.r": "2"}, "unet.r='2' is not the number"),
        (GOOD, {"unet.r": 0}, "unet.r=0 is below 1"),
        (GOOD, {"unet.r": 2, "unet.lora_alpha": "x"}, "unet.lora_alpha='x' is not the number"),
        (GOOD, {"unet.r": 2, "unet.alpha_pattern": {"to_q": [1]}}, r"unet.alpha_pattern.to_q=\[1\] is not"),
        ({**GOOD, f"unet.{TO_Q}.alpha": (2,)}, None, r"to_q.alpha is \(2,\) and not one number"),
        ({A: (0, 8), B: (8, 0)}, None, "to_q has no rows"),
        (GOOD, {"unet.r": 2, "text_encoder.r": 2}, "describes the text_encoder and has no update of it"),
    ],
)
def test_what_is_no_lora_of_these_modules_is_refused(state, facts, words, modules, write):
    path = write({name: torch.ones(shape) for name, shape in state.items()}, facts)
    with pytest.raises(ValueError, match=words) as error:
        merge(path, modules)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.tensor(float("nan")), "not finite"),
        (torch.tensor(1, dtype=torch.int8), "torch.int8: quantised"),
    ],
)
def test_tensors_that_are_no_numbers_to_add_are_named(value, words, modules, write):
    state = {A: torch.ones(2, 8), B: value.expand(8, 2)}
    with pytest.raises(ValueError, match=f"{TO_Q}.lora_B.weight holds .*{words}"):
        merge(write(state), modules)


def test_names_of_two_trainers_for_the_same_layers_are_not_halved(modules, write):
    # diffusers drops the first kind where both are there.
    state = {}
    for name in ("lora_unet_input_blocks_1_1_proj_in", f"lora_unet_{FLAT}_to_q"):
        state |= {f"{name}.lora_down.weight": torch.ones(2, 8), f"{name}.lora_up.weight": torch.ones(8, 2)}
    with pytest.raises(ValueError, match="two namings"):
        merge(write(state), modules)


def test_a_description_that_cannot_be_read(modules, tmp_path):
    save_file(
        {A: torch.ones(2, 8), B: torch.ones(8, 2)}, tmp_path / "x.safetensors", {"lora_adapter_metadata": "{"}
    )
    with pytest.raises(ValueError, match="lora_adapter_metadata is not JSON"):
        merge(tmp_path / "x.safetensors", modules)


def test_a_lora_is_merged_into_the_loaded_backbone(modules, write, tmp_path):
    write_sd(tmp_path / "sd", 1)
    text, words = pair(modules, f"text_encoder.{MLP}", *KOHYA, "lora_te_text_model_encoder_layers_1_mlp_fc1")
    unet, picture = pair(modules, f"unet.{TO_Q}", *KOHYA, f"lora_unet_{FLAT}_to_q")
    file = write({**text, **unet})
    recipe = Recipe((str(tmp_path / "sd"),), lora=str(file))
    plain, after = load(Recipe((str(tmp_path / "sd"),)), CPU, 32, 32), load(recipe, CPU, 32, 32)
    layer = after.unet.get_submodule(TO_Q)
    torch.testing.assert_close(layer.weight, plain.unet.get_submodule(TO_Q).weight + picture)
    assert type(layer) is torch.nn.Linear
    assert not layer.weight.requires_grad
    assert not torch.equal(after.encode("a cat", "").prompt, plain.encode("a cat", "").prompt)
    save_file({"something": words}, file)
    with pytest.raises(WrongWeights, match=r"backbone.lora=\S+lora.safetensors cannot be loaded: [^\n]+$"):
        load(recipe, CPU, 32, 32)
