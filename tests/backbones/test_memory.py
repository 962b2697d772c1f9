"""Block checkpointing: less memory, the same values."""

import pytest
import torch
from hub_box import write_sd, write_sdxl
from tiny import load_tiny

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.processes.ddim import ddim

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def make(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (write_sd if request.param == "sd" else write_sdxl)(folder, 1)

    def make(checkpointing=False):
        return load_tiny(
            folder,
            height=64,
            width=104,
            layout=request.param,
            attention_stride=4,
            checkpointing=checkpointing,
        )

    return make


def inputs(backbone):
    z = torch.randn(2, *backbone.latent_shape(), generator=torch.Generator().manual_seed(1))
    conditioning = Conditioning.of([backbone.encode(prompt, "") for prompt in ("a red cat", "dogs")])
    return z.requires_grad_(), ddim(backbone.scheduler_config, 10, 1).steps[4], conditioning


def saved(call):
    """Bytes that a graph keeps beside parameters, each storage once."""
    storages = {}

    def pack(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    return result, sum(storages.values())


@pytest.mark.parametrize("halves", [None, "both"])
def test_checkpointing_changes_no_gradient_and_keeps_less(make, halves):
    found = []
    for checkpointing in (False, True):
        backbone = make(checkpointing)
        assert not backbone.unet.training
        z, step, conditioning = inputs(backbone)
        prediction, kept = saved(lambda: backbone.predict(z, step, conditioning, Guider(3), halves))  # noqa: B023
        maps = torch.zeros(1) if halves is None else prediction.attention[..., 1]
        loss = maps.square().sum() * 100 + prediction.x0.square().sum()
        # Twice, so that the graph is walked back and recomputed more than once.
        gradients = [torch.autograd.grad(loss, z, retain_graph=again)[0] for again in (True, False)]
        assert torch.equal(*gradients)
        assert not backbone.probe.reading.on
        found.append((prediction.eps, maps, gradients[0], kept))
    (eps, maps, gradient, much), (eps_too, maps_too, gradient_too, less) = found
    assert torch.equal(eps, eps_too)
    assert torch.equal(maps, maps_too)
    torch.testing.assert_close(gradient_too, gradient, rtol=1e-5, atol=1e-7)
    assert less < much / 2


def test_the_decoder_is_checkpointed_too(make):
    found = []
    for checkpointing in (False, True):
        backbone = make(checkpointing)
        z, _, _ = inputs(backbone)
        picture, kept = saved(lambda: backbone.decode(z))  # noqa: B023
        found.append((torch.autograd.grad(picture.square().sum(), z)[0], kept))
    (gradient, much), (gradient_too, less) = found
    torch.testing.assert_close(gradient_too, gradient, rtol=1e-5, atol=1e-7)
    assert less < much / 2


def test_nothing_is_recomputed_without_gradients(make, monkeypatch):
    backbone = make(checkpointing=True)
    z, step, conditioning = inputs(backbone)
    monkeypatch.setattr("align.backbones.checkpointing.checkpoint", None)
    with torch.no_grad():
        backbone.decode(backbone.predict(z, step, conditioning, Guider(3), "both").x0)
