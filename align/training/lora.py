"""Low-rank updates (LoRA, arXiv 2106.09685) of a backbone's network, trained beside its frozen weights.

peft attaches them: the linear maps of the attentions, W + B A with A normal of deviation 1/rank, B zero and scale 1.  Switched off, the
network is the one that the training began from, which is the reference of every preference loss: no second copy is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save
from torch import Tensor, nn

from align import writing

FILE = "pytorch_lora_weights.safetensors"
"""Under which diffusers looks for updates in a folder."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_ADAPTER = "default"


class Lora:
    """Updates of a network.

    Args:
        network: a UNet or transformer of diffusers', frozen.
        part: its name in a pipeline, with which the file's names begin.
        rank: of each update.
        modules: ends of the names of the linear maps that have one.
        seed: of A.
    """

    def __init__(
        self,
        network: nn.Module,
        part: str = "unet",
        rank: int = 4,
        modules: Sequence[str] = ATTENTION,
        seed: int = 0,
    ) -> None:
        self.network, self.part = network, part
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(modules))
        network.add_adapter(config, _ADAPTER)  # type: ignore[operator]
        self._layers = [layer for layer in network.modules() if isinstance(layer, BaseTunerLayer)]
        self._named: dict[str, nn.Parameter] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                parameter.data = _start(name, parameter, rank, seed)
                self._named[name.replace(f".{_ADAPTER}", "")] = parameter

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """A and B by their places in the network, float32."""
        return self._named

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside the block the network is what it was before."""
        for layer in self._layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in self._layers:
                layer.enable_adapters(True)

    def save(self, folder: Path) -> None:
        """In diffusers' names, as ``backbone.lora=FILE`` and ``load_lora_weights`` read them."""
        folder.mkdir(parents=True, exist_ok=True)
        plain = {name: one.detach().cpu().contiguous() for name, one in self._named.items()}
        named: dict[str, Tensor] = convert_state_dict_to_diffusers(plain)
        writing.write_bytes(
            folder / FILE, save({f"{self.part}.{name}": one for name, one in named.items()}, {"format": "pt"})
        )


def _start(name: str, parameter: Tensor, rank: int, seed: int) -> Tensor:
    """A, keyed by its place, or B: float32 whatever the network computes in."""
    if ".lora_B." in name:
        return torch.zeros_like(parameter, dtype=torch.float32)
    key = hashlib.sha256(f"{seed}\x1flora\x1f{name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
    drawn = torch.randn(parameter.shape, generator=generator) / rank
    return drawn.to(parameter.device)
