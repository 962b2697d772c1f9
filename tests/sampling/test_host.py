"""How often a sampling waits for its device: counted on a CPU, where some tensors are taken for a device's."""

from collections import Counter

import pytest
import torch
from fakes import CPU, FakeBackbone, FakeReward, watching, words_graph
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.runner.build import assemble
from align.sampling import batching
from align.sampling.host import read, read_together, send
from align.sampling.sampler import Request
from align.semantics.sources import PromptGraphs

WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "equal",
}


def tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Device(TorchDispatchMode):
    """What is sent to a device or made there, and all that is computed from it, is on it; ``waits`` counts what would wait.

    Tensors are told apart by their storage.
    """

    def __init__(self):
        super().__init__()
        self.there, self.waits, self.calls = {}, Counter(), Calls(self)

    def __enter__(self):
        self.calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.calls.__exit__(*error)

    def has(self, *tree):
        found = [self.there.get(one.untyped_storage()._cdata) for one in tensors(tree)]
        return any(one is not None and not one.expired() for one in found)

    def put(self, tree):
        for one in tensors(tree):
            weak = StorageWeakRef(one.untyped_storage())
            self.there[weak.cdata] = weak
        return tree

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, kwargs = function.overloadpacket.__name__, kwargs or {}
        there = self.has(args, kwargs)
        masks = [one for one in tensors(args[1:2]) if one.dtype == torch.bool]
        if there and (name in WAITS or (name in ("index", "index_put", "index_put_") and self.has(masks))):
            self.waits[name] += 1
        found = function(*args, **kwargs)
        return self.put(found) if there else found


class Calls(TorchFunctionMode):
    """What crosses over without an operation on a CPU."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs, device = getattr(function, "__name__", ""), kwargs or {}, self.device
        if name in ("cpu", "tolist", "numpy") and device.has(args[:1]):
            device.waits[name] += 1
            found = function(*args, **kwargs)
            if name == "cpu":
                found = found.clone()
                device.there.pop(found.untyped_storage()._cdata, None)
            return found
        found = function(*args, **kwargs)
        if name == "to" and any(isinstance(one, torch.device) for one in args[1:]) and not device.has(found):
            return device.put(found.clone())
        if "device" in kwargs and isinstance(found, torch.Tensor):
            device.put(found)
        return found


def test_what_waits_is_counted_and_what_does_not_is_not():
    with Device() as device:
        here = torch.arange(4)
        mask, numbers = here > 1, send(here.float(), CPU)
        numbers[here], here[mask], here.tolist(), bool(mask.any()), torch.nonzero(mask)
        (numbers + 1).sum()
        assert not device.waits
        there = numbers.view(2, 2)[0] > 0
        for wait in (
            lambda: bool(there.any()),
            lambda: numbers[:2][there],
            lambda: torch.nonzero(there),
            lambda: there.tolist(),
            lambda: float(numbers.sum()),
            lambda: numbers.unique(),
            lambda: read(numbers),
            lambda: read_together(numbers, numbers * 2),
        ):
            before = device.waits.total()
            wait()
            assert device.waits.total() == before + 1
        assert not device.has(read(numbers) * 2)


STEPS = 10
CEILINGS = {
    "none": ([], 1),
    "dymo": (["method.recurrence.rule=none"], 2),
    "dymo with time travel": (["method.recurrence.rule=gradient_norm", "method.recurrence.cap=2"], 2),
    "das": ([], 3),
    "smc": ([], 3),
    "fk": ([], 3),
    "svdd": (["method.search.candidates=3"], 3),
    "dsearch_r": (["method.search.candidates=2"], 3),
    "ugd": ([], 2),
}


@pytest.mark.parametrize("method", CEILINGS)
def test_a_sampling_reads_the_device_hardly_ever(method):
    options, ceiling = CEILINGS[method]
    options = [f"method={method.split()[0]}", f"sampler.steps={STEPS}", "sampler.eta=1", *options]
    config = jobs_of(parse(options))[0].config
    sampler = assemble(
        config, FakeBackbone(), FakeReward(), PromptGraphs(words_graph).pairs, batching.Calls(4), CPU
    )
    with Device() as device, watching() as evaluations:
        outcomes = sampler.sample([Request("red cat blue dog"), Request("a quiet morning")])
    assert device.there
    assert all(one.error is None for one in outcomes)
    assert device.waits.total() <= ceiling * len(evaluations)
