"""Merging a file of low-rank updates (LoRA, arXiv 2106.09685; DoRA, arXiv 2402.09353) into a backbone's modules.

diffusers reads the names that trainers write (its own of all times, kohya's, peft's) and peft knows what an update means:
scales by rank, alpha and their patterns, magnitudes.  What a file states is applied whole or refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from diffusers.loaders import FluxLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from diffusers.utils.state_dict_utils import StateDictType
from peft import LoraConfig, LoraModel
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from align.checkpoints.layout import ADAPTER, ADAPTER_CONFIG
from align.reading import parse_object

_ADAPTER = "default"
_KOHYA = {False: ("lora_unet_", "lora_te_"), True: ("lora_unet_", "lora_te1_", "lora_te2_")}
"""How kohya's names begin, by whether there are two text encoders."""
_PEFT_MODEL = "base_model.model."
_KNOWN = re.compile(
    r"[._]lora_?(?:[AB]|down|up|linear_layer\.(?:down|up)|\.(?:down|up)|magnitude_vector)(?:\.default)?(?:\.weight|\.bias)?"
    r"|.+\.alpha"
)
_PLAIN = (None, True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin training after which the backbone's own weights are still those that the update is added to."""


def merge(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """Add the updates of a safetensors file, peft's own with its ``adapter_config.json`` beside it, to the weights of modules by
    their names in the pipeline, the network first, in float32.

    Raises:
        ValueError: in one line, naming what is no update of these modules or is not read.
        SafetensorError, OSError: the file is damaged.
    """
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stated = parse_object(
            (file.metadata() or {}).get("lora_adapter_metadata", "{}"), "the LoRA's lora_adapter_metadata"
        )
    for name, value in state.items():
        if not value.is_floating_point() and not name.endswith(".alpha"):
            raise ValueError(f"the LoRA's {name} holds {value.dtype}: quantised updates are not read")
        if not value.isfinite().all():
            raise ValueError(f"the LoRA's {name} holds numbers that are not finite: it is damaged")
        if name.endswith(".alpha") and value.numel() != 1:
            raise ValueError(f"the LoRA's {name} is {tuple(value.shape)} and not one number")
    strange = [name for name in state if not re.search(f"(?:{_KNOWN.pattern})$", name)]
    if strange or not state:
        raise ValueError(
            f"the LoRA file holds {_few(strange) or 'nothing'}, which is no low-rank update that is read"
        )
    if all(name.startswith(_PEFT_MODEL) for name in state):
        if path.name != ADAPTER:
            raise ValueError(
                f"peft's own files are read as {ADAPTER}, with {ADAPTER_CONFIG} beside it: name it so"
            )
        stated = parse_object(
            (path.parent / ADAPTER_CONFIG).read_text(encoding="utf-8"), f"the LoRA's {ADAPTER_CONFIG}"
        )
        state = {name.removeprefix(_PEFT_MODEL): value for name, value in state.items()}
    network = next(iter(modules))
    if all(name.startswith(_KOHYA["text_encoder_2" in modules]) for name in state):
        updates, alphas = _from_kohya(state, modules[network])
    else:
        alphas = {name: float(value) for name, value in state.items() if name.endswith(".alpha")}
        updates = {name: value for name, value in state.items() if name not in alphas}
    if not any(name.startswith(tuple(f"{part}." for part in modules)) for name in updates):
        # As a network saves them by itself: nothing says whose they are.
        updates = {f"{network}.{name}": value for name, value in updates.items()}
        alphas = {f"{network}.{name}": value for name, value in alphas.items()}
        stated = {f"{network}.{name}": value for name, value in stated.items()}
    if lost := [name for name in (*updates, *alphas, *stated) if name.partition(".")[0] not in modules]:
        raise ValueError(f"the LoRA's {_few(lost)} is of no module here: there are {', '.join(modules)}")
    for part, model in modules.items():
        mine = [_of(part, one) for one in (updates, alphas, stated)]
        if any(mine):
            _merge_into(model, part, *mine)


def _merge_into(
    model: nn.Module, part: str, named: dict[str, Tensor], alphas: dict[str, float], stated: dict[str, Any]
) -> None:
    """Merge the updates of one module, which are named without its prefix. Raises ValueError."""
    state = {_peft_name(name, model): value for name, value in named.items()}
    layers = sorted({_layer(name) for name in state})
    inside = dict(model.named_modules())
    if lost := [name for name in layers if not isinstance(inside.get(name), nn.Linear | nn.Conv2d)]:
        raise ValueError(f"the LoRA's {_few(lost)} is no layer of the {part}")
    if len(state) < len(named):
        raise ValueError(f"the LoRA has two tensors for one place in the {part}")
    if not state or (stated and alphas):
        what = "no update of it" if not state else f"alphas of its own: {_few(sorted(alphas))}"
        raise ValueError(f"the LoRA describes the {part} and has {what}")
    config = _stated(stated, layers, part, model) if stated else _found(state, alphas, part, model)
    with torch.random.fork_rng(devices=[]):
        LoraModel(model, {_ADAPTER: config}, _ADAPTER, state_dict=state)
    places = {
        name.replace(f".{_ADAPTER}", "").replace("_vector.weight", "_vector"): parameter
        for name, parameter in model.named_parameters()
        if ".lora_" in name
    }
    _check_fit(part, state, places)
    for name, parameter in places.items():
        parameter.data = state[name]
    for name in layers:
        layer: Any = model.get_submodule(name)
        base = layer.get_base_layer()
        dtype = base.weight.dtype
        layer.float()
        layer.merge(safe_merge=True)
        model.set_submodule(name, base.to(dtype))
    del model.peft_config


def _of(part: str, named: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(f"{part}."): v for k, v in named.items() if k.startswith(f"{part}.")}


def _from_kohya(state: dict[str, Tensor], network: nn.Module) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors and alphas under diffusers' names. Raises ValueError if diffusers knows one not, or would drop it."""
    try:
        if isinstance(
            network, FluxTransformer2DModel
        ):  # whose joint projections it parts, and whose scales it applies
            return FluxLoraLoaderMixin.lora_state_dict(dict(state)), {}
        if not isinstance(network, UNet2DConditionModel):
            raise ValueError(f"of {type(network).__name__} diffusers reads its own and peft's alone")
        found, alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
            dict(state), unet_config=network.config
        )
    except KeyError as error:
        raise ValueError(f"the LoRA lacks {error.args[0]}") from None
    except ValueError as error:
        raise ValueError(f"the LoRA's names are not all known: {' '.join(str(error).split())}") from None
    if len(found) + len(alphas) < len(state):
        raise ValueError("the LoRA has tensors in two namings of the same layers, or two for one place")
    return found, alphas


def _peft_name(name: str, model: nn.Module) -> str:
    one: dict[str, None] = {name.replace(f".{_ADAPTER}.", "."): None}
    if isinstance(model, PreTrainedModel):
        for kind in (StateDictType.DIFFUSERS_OLD, StateDictType.DIFFUSERS):
            one = convert_state_dict_to_peft(one, kind)
    (found,) = convert_unet_state_dict_to_peft(one)
    return _own_name(found.replace("_vector.weight", "_vector"), model)


def _own_name(name: str, model: nn.Module) -> str:
    """A layer's name in the model, from a file that may be older than today's transformers."""
    return name if hasattr(model, "text_model") else re.sub(r"^\^?text_model\.", "", name)


def _layer(name: str) -> str:
    return name.rpartition(".lora_")[0]


def _found(
    state: Mapping[str, Tensor], alphas: Mapping[str, float], part: str, model: nn.Module
) -> LoraConfig:
    """What the tensors themselves say: ranks by their shapes; a layer without an alpha has the scale 1."""
    ranks = {_layer(name): value.shape[0] for name, value in state.items() if name.endswith("lora_A.weight")}
    if empty := sorted(layer for layer, rank in ranks.items() if rank == 0):
        raise ValueError(f"the LoRA's update of {part}.{_few(empty)} has no rows")
    factors = {_alpha_layer(name, model): value for name, value in alphas.items()}
    if lost := sorted(factors.keys() - ranks.keys()):
        raise ValueError(f"the LoRA has an alpha and no update for {part}.{_few(lost)}")
    return LoraConfig(
        target_modules=sorted(ranks),
        rank_pattern={f"^{re.escape(layer)}": rank for layer, rank in ranks.items()},
        alpha_pattern={f"^{re.escape(layer)}": factors.get(layer, rank) for layer, rank in ranks.items()},
        use_dora=any(name.endswith("lora_magnitude_vector") for name in state),
        lora_bias=any(name.endswith("lora_B.bias") for name in state),
    )


def _alpha_layer(name: str, model: nn.Module) -> str:
    """Which layer an alpha is of; kohya's are named, once converted, by the tensor or by the layer."""
    whole = name.removesuffix(".alpha")
    return _layer(_peft_name(whole if whole.endswith(".weight") else f"{whole}.lora.down.weight", model))


def _stated(facts: Mapping[str, Any], layers: list[str], part: str, model: nn.Module) -> LoraConfig:
    """What the file's own description says of the layers that it has. Raises ValueError."""
    if (start := facts.get("init_lora_weights")) not in _PLAIN:
        raise ValueError(
            f"the LoRA was trained with init_lora_weights={start}: convert it to a plain one with peft"
        )
    facts = {**facts, "init_lora_weights": True, "target_modules": layers}
    for key, least in (("r", 1), ("lora_alpha", None)):
        _check_number(part, key, facts.get(key, 8), least)
    facts |= dict.fromkeys(("exclude_modules", "layers_to_transform", "layers_pattern"))
    try:
        for key in ("rank_pattern", "alpha_pattern"):
            facts[key] = {_own_name(name, model): value for name, value in (facts.get(key) or {}).items()}
            for name, value in facts[key].items():
                _check_number(part, f"{key}.{name}", value, 1 if key == "rank_pattern" else None)
            lost = [
                one for one in facts[key] if not any(re.match(rf"(.*\.)?({one})$", layer) for layer in layers)
            ]
            if lost:
                raise ValueError(f"the LoRA's {part}.{key} names {_few(lost)}, of which it has no update")
        return LoraConfig(**facts)
    except (TypeError, AttributeError, re.error) as error:
        raise ValueError(f"the LoRA's description of the {part} is not read by this peft: {error}") from None


def _check_number(part: str, key: str, value: object, least: int | None) -> None:
    """Refuse what is no finite number, or where there is a ``least`` no whole one from there; raises ValueError."""
    kinds = (int, float) if least is None else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise ValueError(f"the LoRA's {part}.{key}={value!r} is not the number that it has to be")
    if least is not None and value < least:
        raise ValueError(f"the LoRA's {part}.{key}={value} is below {least}")


def _check_fit(part: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse tensors that the layers have no use for, lack, or have in another shape; raises ValueError."""
    if odd := sorted(given.keys() ^ wanted.keys()):
        what = "lacks" if odd[0] in wanted else "has, beside what it says that it has,"
        raise ValueError(f"the LoRA {what} {part}.{_few(odd)}")
    shapes = {name: (tuple(given[name].shape), tuple(wanted[name].shape)) for name in sorted(given)}
    if odd := [f"{name} is {a} and not {b}" for name, (a, b) in shapes.items() if a != b]:
        raise ValueError(f"the LoRA is for another model: {part}.{_few(odd)}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
