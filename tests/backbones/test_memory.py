"""Block checkpointing and reading only some columns of the maps: less memory, the same values."""

import pytest
import torch
from hub_box import write_sd, write_sdxl

from align.backbones.base import Conditioning
from align.backbones.unet import UNetBackbone
from align.processes.ddim import ddim

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def make(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    (write_sd if request.param == "sd" else write_sdxl)(folder, 1)

    def make(checkpointing=False):
        return UNetBackbone.from_folder(
            folder,
            CPU,
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


COLUMNS = {"all": None, "shared": torch.tensor([3, 1]), "own": torch.tensor([[3, 1], [2, 2]])}


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("halves", ["both", "prompt"])
def test_columns_are_those_of_the_whole_maps(make, columns, halves):
    backbone = make()
    z, step, conditioning = inputs(backbone)
    whole = backbone.predict(z, step, conditioning, 3, attention=halves).attention
    some = backbone.predict(z, step, conditioning, 3, attention=halves, columns=COLUMNS[columns]).attention
    if columns == "all":
        expected = whole
    else:
        index = COLUMNS[columns].expand(2, -1)
        expected = torch.stack([whole[k][..., index[k]] for k in range(2)])
    assert torch.equal(some, expected)


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


@pytest.mark.parametrize("columns", COLUMNS)
def test_checkpointing_changes_no_gradient_and_keeps_less(make, columns):
    found = []
    for checkpointing in (False, True):
        backbone = make(checkpointing)
        assert not backbone.unet.training
        z, step, conditioning = inputs(backbone)
        prediction, kept = saved(
            lambda: backbone.predict(z, step, conditioning, 3, "both", COLUMNS[columns])  # noqa: B023
        )
        before = dict(backbone.unet.attn_processors)
        loss = prediction.attention[..., 1].square().sum() * 100 + prediction.x0.square().sum()
        # Twice, so that the graph is walked back and recomputed more than once.
        gradients = [torch.autograd.grad(loss, z, retain_graph=again)[0] for again in (True, False)]
        assert torch.equal(*gradients)
        assert backbone.unet.attn_processors == before
        found.append((prediction.eps, prediction.attention, gradients[0], kept))
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
        backbone.decode(backbone.predict(z, step, conditioning, 3, "both").x0)
