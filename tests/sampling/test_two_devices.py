"""Whether a sampling would run where the device is another machine's: on a CPU, whose tensors are told apart."""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.rewards import preprocess, resample
from align.runner import build
from align.runner.files import Files
from align.sampling.batching import Calls
from align.sampling.sampler import Request

CPU, THERE = torch.device("cpu"), torch.device("meta")


class Far(torch.Tensor):
    """Numbers on a device of their own, which says it is ``meta``."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near):
        layout = {"strides": near.stride(), "storage_offset": near.storage_offset(), "dtype": near.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, near.size(), device=THERE, **layout)
        made.near = near
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


class Given(TorchFunctionMode):
    """Makes tensors of given numbers there."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        numbers = function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor)
        if numbers and kwargs.get("device") == THERE:
            return Far(function(*args, **{**kwargs, "device": CPU}))
        return function(*args, **kwargs)


class Device(TorchDispatchMode):
    """Makes tensors there that are asked for there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


def compute(function, args, kwargs):
    """Compute on the CPU, and refuse to mix devices as CUDA does: but for copies, numbers, and indices from the host."""
    name, asked = function.overloadpacket.__name__, kwargs.get("device")
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    far = {id(one.near): one for one in tensors if isinstance(one, Far)}
    near = [one for one in tensors if not isinstance(one, Far)]
    indexed = name.startswith(("index", "_index_put")) and isinstance(args[0], Far)
    mixed = [one for one in near if one.ndim or name in ("cat", "stack", "index_copy")]
    if far and mixed and name not in ("copy_", "_to_copy"):
        allowed = indexed and all(not one.is_floating_point() for one in mixed)
        assert allowed, f"{name} of tensors on two devices: {[tuple(one.shape) for one in tensors]}"
    out = bool(far) if asked is None else torch.device(asked) == THERE
    if out and asked is not None:
        kwargs = {**kwargs, "device": CPU}
    args, kwargs = tree_map_only(Far, lambda one: one.near, (args, kwargs))
    found = function(*args, **kwargs)
    if not out:
        return found
    return tree_map_only(torch.Tensor, lambda one: far[id(one)] if id(one) in far else Far(one), found)


def move(module):
    """Send a module there."""
    for one in module.modules():
        for name, weight in one._parameters.items():
            if weight is not None:
                one._parameters[name] = torch.nn.Parameter(Far(weight.detach()), requires_grad=False)
        for name, kept in one._buffers.items():
            one._buffers[name] = None if kept is None else Far(kept)


def far_sampler(*options):
    """A method of the shapes world with all that it has there."""
    config = jobs_of(parse(["metrics=none", "sampler.steps=3", "sampler.eta=1", *options]))[0].config
    files = Files(config)
    build._backbone.cache_clear()
    build.load_reward.cache_clear()
    backbone = build._backbone(config.backbone, files.pieces, CPU)
    reward = build.build_reward(config.reward, CPU)
    text = backbone.text
    backbone.device = text.device = text._home = text._place = reward.device = THERE
    for one in (backbone.unet, backbone.vae, *(encoder.model for encoder in text.encoders)):
        move(one)
    for name in ("vision_model", "visual_projection"):
        move(reward.model.get_submodule(name))
    compute_text = reward.texts._compute
    reward.texts._compute = lambda prompt: compute_text(prompt).to(THERE)
    with Given(), Device():
        return build.assemble(config, backbone, reward, build.pairs_of(config), Calls(2), THERE, files)


@pytest.fixture(autouse=True)
def nothing_is_kept():
    """Caches of tensors and models are per device, which tests must not leave theirs in."""
    caches = (resample.axis, preprocess._channels, build._backbone, build.load_reward)
    for one in caches:
        one.cache_clear()
    yield
    for one in caches:
        one.cache_clear()


METHODS = {
    "dymo": ["method.recurrence.rule=gradient_norm", "method.recurrence.cap=2", "method.objective.copies=2"],
    "das": ["method.particles=2"],
    "svdd": ["method.search.candidates=2", "method.search.temperature=0.1"],
    "mpgd": [],
}


@pytest.mark.parametrize(
    "method", ["dymo", "das", *(pytest.param(one, marks=pytest.mark.slow) for one in ("svdd", "mpgd"))]
)
def test_nothing_mixes_the_host_and_the_device(method):
    sampler = far_sampler(f"method={method}", *METHODS[method])
    with Given(), Device():
        found = sampler.sample([Request("a red circle above a blue star"), Request("a green square")])
    assert [one.error for one in found] == [None, None]
    assert all(one.picture.device == CPU for one in found)


def test_mixing_is_refused():
    far, near = Far(torch.ones(2)), torch.ones(2)
    with pytest.raises(AssertionError, match="add of tensors on two devices"):
        far + near
    assert isinstance(far[torch.tensor([0])] + near[0], Far)
    assert (far * 2).cpu().tolist() == [2, 2]
