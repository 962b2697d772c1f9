"""Whether diffusers' switches of a network can be had here: device, packages, and of quantised weights what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from align.config.errors import ConfigError
from align.config.schema import Config
from align.errors import WrongWeights
from align.runner.devices import torch_device

_PACKAGES = {
    "flash": "flash_attn",
    "_flash_3": "flash_attn_interface",
    "sage": "sageattention",
    "xformers": "xformers",
}
"""What backends of attention are imported as."""
_ANYWHERE = ("native", "_native_math")
PASSES = ("bitsandbytes", "bitsandbytes_4bit", "bitsandbytes_8bit", "torchao", "quanto")
"""Forms of quantised weights that a gradient to what goes in passes through."""


def check_machine(config: Config) -> None:
    """Refuse what needs another device or a package. Raises ConfigError."""
    backbone = config.backbone
    kernel = backbone.attention not in (None, *_ANYWHERE)
    if not (backbone.offload or kernel):
        return
    if torch_device(config.run.device).type != "cuda":
        option = "offload=true" if backbone.offload else f"attention={backbone.attention}"
        off = "offload=false" if backbone.offload else "attention=null"
        raise ConfigError(
            f"backbone.{option} needs CUDA, and run.device={config.run.device} is none: give backbone.{off}"
        )
    package = _PACKAGES.get(str(backbone.attention))
    if package is not None and find_spec(package) is None:
        raise ConfigError(
            f"backbone.attention={backbone.attention} needs the package {package}, not there: install it, or give backbone.attention=null"
        )


def check_quantised(config: Config, network: Mapping[str, Any]) -> None:
    """Refuse a network, by its config, whose quantised weights cannot be read here or pass no gradient that a method needs.

    Raises:
        ConfigError: another option does not go with it.
        WrongWeights: a package or the device for it is not there.
    """
    stated = network.get("quantization_config")
    if stated is None:
        return
    backbone = config.backbone
    method = stated.get("quant_method") if isinstance(stated, dict) else None
    what = f"the network's weights are quantised (quantization_config of {method})"
    for name in ("lora", "storage", "compile"):
        if getattr(backbone, name):
            raise ConfigError(
                f"backbone.{name}={getattr(backbone, name)}: {what}: give plain ones, or leave it out"
            )
    if config.method.walks_back and method not in PASSES:
        raise ConfigError(
            f"{what}, and method={config.method.name} needs a gradient: give plain ones, or method=best_of_n"
        )
    import torch
    from diffusers.quantizers.auto import DiffusersAutoQuantizer

    device = torch_device(config.run.device)
    place = {"device_map": {"": device}} if device.type == "cuda" else {}
    try:
        quantiser = DiffusersAutoQuantizer.from_config(dict(stated), pre_quantized=True)
        quantiser.validate_environment(torch_dtype=getattr(torch, backbone.dtype), **place)
    except Exception as error:  # of many classes, ImportError for a package among them
        raise WrongWeights(f"{what}: {str(error).splitlines()[0]}") from error
