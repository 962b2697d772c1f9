"""Deterministic arithmetic, and a guide's own kind of numbers beside metrics in float32."""

import os
import subprocess
import sys

import pytest
import torch
from fakes import FakeBackbone
from torch.utils._python_dispatch import TorchDispatchMode

from align import api
from align.__main__ import main
from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.semantics import SemanticsConfig
from align.rewards.combination import WeightedSum
from align.rewards.function import FunctionReward
from align.runner import build, graphs
from align.sampling.batching import Calls
from align.sampling.sampler import Request
from align.semantics.graph import RefusedError
from align.semantics.sources import no_pairs
from align.startup import fix_workspace

NONDETERMINISTIC = {
    # ``torch.use_deterministic_algorithms`` of torch 2.15: what it refuses on CUDA
    *(f"upsample_{kind}_backward" for kind in ("linear1d", "bilinear2d", "bicubic2d", "trilinear3d")),
    *(f"_upsample_{kind}2d_aa_backward" for kind in ("bilinear", "bicubic")),
    *(f"grid_sampler_{n}d_backward" for n in (2, 3)),
    *(f"reflection_pad{n}d_backward" for n in (1, 2, 3)),
    *(f"_adaptive_avg_pool{n}d_backward" for n in (2, 3)),
    *(f"{kind}_max_pool{n}d_backward" for kind in ("adaptive", "fractional") for n in (2, 3)),
    *(f"max_unpool{n}d" for n in (2, 3)),
    *("avg_pool3d_backward", "nll_loss_forward", "nll_loss2d_forward", "_ctc_loss_backward", "put_", "put"),
    *("histc", "bincount", "median", "nanmedian", "scatter_reduce", "scatter_reduce_", "index_reduce"),
    *("_embedding_bag_dense_backward", "kthvalue"),
}  # fmt: skip


class Refused(TorchDispatchMode):
    """Collects the names of operations on floating-point numbers that CUDA would refuse; whole numbers stay on the host."""

    def __init__(self):
        super().__init__()
        self.seen, self.found = set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        numbers = [one for one in args if isinstance(one, torch.Tensor) and one.is_floating_point()]
        self.seen.add(name)
        if numbers and name in NONDETERMINISTIC:
            self.found.add(name)
        return func(*args, **(kwargs or {}))


def sampler(*options):
    config = jobs_of(parse(["metrics=none", "run.batch_size=2", *options]))[0].config
    return build.build_sampler(config, Calls(2))


@pytest.mark.parametrize(
    "options",
    [["method=dymo", "method.objective.copies=2"], ["method=das", "method.particles=2"]],
    ids=["dymo with views", "das"],
)
def test_nothing_that_a_gpu_refuses_to_make_deterministic_is_computed(options):
    ours = sampler(*options, "sampler.steps=3", "sampler.eta=1")
    with Refused() as refused:
        ours.sample([Request("a red circle above a blue star")])
    assert "convolution_backward" in refused.seen
    assert not refused.found


def test_the_watch_sees_the_way_back():
    x = torch.rand(1, 1, 4, 4, requires_grad=True)
    with Refused() as refused:
        torch.nn.functional.interpolate(x, size=(6, 6), mode="bicubic").sum().backward()
    assert refused.found == {"upsample_bicubic2d_backward"}


def test_torch_is_told_to_refuse_and_inductor_is_not_imported():
    code = (
        "import sys; from align.runner.build import set_up_torch; set_up_torch(1); import torch;"
        "assert torch.get_deterministic_debug_mode() == 2;"
        "assert not torch.utils.deterministic.fill_uninitialized_memory;"
        "assert 'torch._inductor' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_guide_in_shorter_numbers_leaves_its_metric_in_float32():
    build.load_reward.cache_clear()
    config = jobs_of(parse(["method=best_of_n", "reward=shapes_pick", "reward.dtype=bfloat16"]))[0].config
    device = torch.device("cpu")
    guide, metric = build.build_reward(config.reward, device), build.load_reward("shapes_pick", device)
    kinds = [one.model.visual_projection.weight.dtype for one in (guide, metric)]
    assert kinds == [torch.bfloat16, torch.float32]
    assert config.reward.label == "shapes_pick in bfloat16"


@pytest.mark.parametrize("name", ["jpeg_compressibility", "toy_gmm"])
def test_what_is_no_network_has_no_other_numbers(name, capsys):
    options = ["method=best_of_n", f"reward={name}", "reward.dtype=float16", "metrics=none"]
    assert main(options) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith(
        f"{name} is no network of ours and computes in numbers of its own: give reward.dtype=null"
    )
    assert "reward.dtype=float16" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("workspace", "mode"), [pytest.param(":16:8", 2, marks=pytest.mark.slow), (":32768:8", 1)]
)
def test_a_users_workspace_that_torch_would_refuse_is_only_warned_of(workspace, mode):
    code = (
        "from align.runner.build import set_up_torch; set_up_torch(1); import torch;"
        f"assert torch.get_deterministic_debug_mode() == {mode}"
    )
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": workspace}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_chat_model_that_is_asked_first_leaves_products_deterministic(monkeypatch, tmp_path):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(RefusedError):
        graphs._asked(SemanticsConfig("llm", local=str(tmp_path / "none")), "cpu").chat([])
    assert fix_workspace()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize(("late", "ours", "mode"), [(False, True, 2), (True, True, 1), (False, False, 1)])
def test_in_a_process_of_the_user_nothing_is_refused_that_cannot_be_had(monkeypatch, late, ours, mode):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: late)
    config = jobs_of(parse(["metrics=none", "run.threads=1"]))[0].config
    before = torch.get_deterministic_debug_mode()
    for _ in range(2):
        with api._torch(config, ours):
            assert torch.get_deterministic_debug_mode() == mode
    assert torch.get_deterministic_debug_mode() == before


class Modes(torch.autograd.Function):
    """Notes how strict torch is, there and back."""

    @staticmethod
    def forward(context, x, seen):
        context.seen = seen
        seen.append(torch.get_deterministic_debug_mode())
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        context.seen.append(torch.get_deterministic_debug_mode())
        return gradient, None


@pytest.fixture
def strict():
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    yield
    torch.set_deterministic_debug_mode(before)


@pytest.mark.usefixtures("strict")
def test_what_a_users_reward_computes_is_not_refused_there_nor_back():
    seen, own = [], []
    reward = FunctionReward("mine", lambda x, _: Modes.apply(x, seen).mean(dim=(1, 2, 3)), True, {})
    sampler = build.assemble(
        jobs_of(parse(["method=dps", "sampler.steps=2"]))[0].config,
        Watched(own),
        WeightedSum([(0.5, reward)]),
        no_pairs,
        Calls(2),
        torch.device("cpu"),
    )
    sampler.sample([Request("a cat")])
    assert set(seen) == {1}
    assert set(own) == {2}
    assert len(seen) > len(own) / 2 > 1

    def broken(pictures, prompts):
        raise KeyError("what")

    with pytest.raises(KeyError):
        FunctionReward("mine", broken, True, {}).score(torch.zeros(1, 3, 4, 4), ["a cat"])
    assert torch.get_deterministic_debug_mode() == 2


class Watched(FakeBackbone):
    """Notes how strict torch is in its decoder."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def decode(self, z0):
        return super().decode(Modes.apply(z0, self.seen))
