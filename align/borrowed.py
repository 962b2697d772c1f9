"""A diffusers pipeline of the user's as a backbone, for as long as it is borrowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from align.config.errors import ConfigError
from align.config.schema import BackboneConfig, Config

if TYPE_CHECKING:
    from align.backbones.base import Backbone
    from align.rewards.base import Reward
    from align.runner.plan import Item
    from align.sampling.sampler import Samples


def facts(pipeline: Any) -> tuple[str, list[str]]:
    """The preset whose options a pipeline takes, and options that are its own.

    Raises:
        ConfigError: it is none that can be sampled here.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    name = type(pipeline).__name__
    network, vae = getattr(pipeline, "unet", None), getattr(pipeline, "vae", None)
    if not isinstance(network, UNet2DConditionModel) or not isinstance(vae, AutoencoderKL):
        raise ConfigError(
            f"improve: {name} has no UNet2DConditionModel and AutoencoderKL: give a pipeline of Stable Diffusion, "
            "Stable Diffusion XL or a latent consistency model"
        )
    if network.config.in_channels != vae.config.latent_channels:
        raise ConfigError(
            f"improve: the network of {name} reads more than latents: give a text-to-image pipeline"
        )
    large = network.config.addition_embed_type == "text_time"
    readers = [
        f"{kind}{number}" for number in ("", "_2")[: 1 + large] for kind in ("text_encoder", "tokenizer")
    ]
    for part in (*readers, "scheduler"):
        if getattr(pipeline, part, None) is None:
            raise ConfigError(f"improve: {name} has no {part}: give a pipeline with all its parts")
    modules = [one for one in pipeline.components.values() if hasattr(one, "parameters")]
    if any(hasattr(one, "_hf_hook") for one in modules):
        raise ConfigError(
            "improve: the pipeline offloads its modules: give one without offloading, on one device"
        )
    preset = "lcm" if network.config.time_cond_proj_dim is not None else "sdxl" if large else "sd15"
    side = network.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)
    dtype = str(network.dtype).removeprefix("torch.")
    options = [f"backbone.height={side}", f"backbone.width={side}", f"backbone.dtype={dtype}"]
    return preset, [*options, f"run.device={pipeline.device}"]


_RECOMPUTING = ("gradient_checkpointing", "_gradient_checkpointing_func", "forward")
"""What ``backbone.checkpointing`` changes of a layer."""
_STATED = (
    "weights",
    "single_file",
    "unet",
    "vae",
    "lora",
    "dtype",
    "decoder_dtype",
    "text_dtype",
    "compile",
    "storage",
    "offload",
)
"""Options of a backbone that the pipeline states itself."""


def check_options(options: Sequence[str]) -> None:
    """Raises ConfigError: one asks for other weights or numbers than the pipeline's."""
    for option in options:
        group, _, name = option.partition("=")[0].lstrip("+~").partition(".")
        if group == "backbone" and name in _STATED:
            raise ConfigError(f"improve: {option}: the pipeline has its own {name}: leave it out")


@contextmanager
def backbone(pipeline: Any, config: BackboneConfig) -> Iterator[Backbone]:
    """The pipeline's own modules as a backbone; afterwards they are as they were.

    Raises:
        ConfigError: its scheduler states a process that is not sampled here, or its options are not the network's.
    """
    import torch

    from align.backbones.modules import Modules
    from align.backbones.text import TextEncoder
    from align.backbones.unet import UNetBackbone
    from align.processes.schedule import read_schedule

    names = ("text_encoder", "text_encoder_2")
    encoders = [getattr(pipeline, name) for name in names if getattr(pipeline, name, None) is not None]
    tokenizers = [pipeline.tokenizer, getattr(pipeline, "tokenizer_2", None)]
    modules = [pipeline.unet, pipeline.vae, *encoders]
    learning = [one for module in modules for one in module.parameters() if one.requires_grad]
    training = [module for module in modules if module.training]
    processors, device = pipeline.unet.attn_processors, pipeline.device
    layers = [layer for module in modules for layer in module.modules()]
    kept = [{name: vars(layer).get(name) for name in _RECOMPUTING} for layer in layers]
    for layer in layers:
        if "gradient_checkpointing" in vars(layer):
            layer.gradient_checkpointing = False  # the user's own recomputing knows nothing of the probe
    overflows = pipeline.vae.dtype == torch.float16 and pipeline.vae.config.force_upcast
    if overflows:
        pipeline.vae.float()
    try:
        try:
            stated = {**pipeline.scheduler.config, "_class_name": type(pipeline.scheduler).__name__}
            text = tuple(map(TextEncoder, filter(None, tokenizers), encoders))
            zero_empty = bool(pipeline.config.get("force_zeros_for_empty_prompt", False))
            own = Modules(pipeline.unet, pipeline.vae, text, zero_empty, read_schedule(stated), device)
            size = config.height, config.width, config.attention_stride
            made = UNetBackbone(own, *size, checkpointing=config.checkpointing)
        except ValueError as error:
            raise ConfigError(f"improve: {error}") from error
        yield made
    finally:
        pipeline.unet.set_attn_processor(processors)
        for layer, own_parts in zip(layers, kept, strict=True):
            for name, part in own_parts.items():
                vars(layer).pop(name, None)
                if part is not None:
                    vars(layer)[name] = part
        if overflows:
            pipeline.vae.half()
        for module in modules:
            module.to(device)
        for module in training:
            module.train()
        for parameter in learning:
            parameter.requires_grad_(True)


def sampler(config: Config, backbone: Backbone, reward: str | Reward, items: Sequence[Item]) -> Samples:
    """The method of a configuration on a borrowed backbone. Raises ConfigError, WeightsError."""
    from align.rewards.base import Reward
    from align.runner.build import assemble, build_reward, guide_of, pairs_of
    from align.runner.calls import calls_of
    from align.runner.devices import torch_device

    device = torch_device(config.run.device)
    if isinstance(reward, str):
        judge = build_reward(config.reward, device, config.judges)
    else:
        judge, kind = reward, type(reward).__name__
        if not isinstance(judge, Reward):
            raise ConfigError(
                f"improve: {kind} is no reward: give the name of one, or an align.rewards.base.Reward"
            )
        if not hasattr(judge, "name"):
            raise ConfigError(
                f"improve: the reward {kind} has no name: give its class one, such as name = 'mine'"
            )
        if config.method.reward_needs_gradient and config.guide is None and not judge.differentiable:
            raise ConfigError(
                f"improve: method={config.method.name} follows the gradient of its reward, and {judge.name} has none: "
                "give another reward, or method='best_of_n'"
            )
    guide = guide_of(config, device)
    return assemble(config, backbone, judge, pairs_of(config), calls_of(config, items), device, guide=guide)
