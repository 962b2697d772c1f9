"""Faults with the real sampler on the shapes world: rewards and gradients that are no numbers, memory, prompts of any kind."""

import json
from collections import Counter

import pytest
import torch

from align.__main__ import main
from align.rewards.base import Reward
from align.runner import build
from align.store.csvfile import read_csv
from align.store.pictures import picture_name

from .helpers import HOSTILE, files

pytestmark = pytest.mark.slow
CHEAP = ["sampler.steps=3", "metrics=none", "run.gallery=false", "run.batch_size=4", "run.threads=1"]
TWO = ["prompts=text", "prompts.text=[a red circle,a blue square]"]


class Judge(Reward):
    """The mean brightness of a picture; what ``broken`` says about a prompt makes it, or its gradient, no number.

    Args:
        broken: value that takes the score's place for the prompt "a red circle".
        gradient: value that takes the gradient's place for that prompt.
        child: the score is only broken for the first picture of a call.
    """

    name = "shapes_pick"

    def __init__(self, broken=None, gradient=None, child=False):
        self.fingerprint = {}
        self.broken, self.gradient, self.child = broken, gradient, child

    def score(self, pictures, prompts, step=None):
        there = torch.tensor([prompt == "a red circle" for prompt in prompts])
        if self.gradient is not None and pictures.requires_grad:
            poison = there[:, None, None, None]
            pictures.register_hook(lambda found: torch.where(poison, self.gradient, found))
        scores = pictures.flatten(1).mean(1).float()
        if self.broken is not None:
            if self.child:
                there &= torch.arange(len(there)) == 0
            scores = torch.where(there, self.broken, scores)
        return scores


@pytest.fixture
def judge(monkeypatch):
    """Put a judge in the place of ``reward=shapes_pick``."""

    def install(**options):
        monkeypatch.setattr(build, "load_reward", lambda name, device: Judge(**options))

    return install


def run(folder, *more):
    code = main([*CHEAP, *TWO, *more, f"run.folder={folder}"])
    return code, read_csv(folder / "results.csv").set_index("prompt")


def picture(folder, rows, prompt):
    return (folder / rows.loc[prompt, "image"]).read_bytes()


@pytest.mark.parametrize(
    ("method", "value"), [("best_of_n", torch.inf), ("fk", torch.nan), ("smc", -torch.inf)]
)
def test_a_reward_that_is_no_number_fails_its_item_alone(method, value, judge, tmp_path):
    """Never a zero: there is no picture, the status says why, and the other item is what it always was."""
    more = [f"method={method}", "sampler=ddim_ancestral", "sampler.steps=3", "method.particles=2"]
    judge()
    _, sound = run(tmp_path / "sound", *more)
    judge(broken=value)
    code, rows = run(tmp_path / "broken", *more)
    assert code == 1
    assert rows.loc["a red circle", "status"] == "failed: no particle has a finite reward"
    assert rows.loc["a red circle", "image"] == ""
    assert rows.loc["a blue square", "status"] == "ok"
    other = "a blue square"
    assert picture(tmp_path / "broken", rows, other) == picture(tmp_path / "sound", sound, other)


@pytest.mark.parametrize("value", [torch.inf])
def test_a_search_without_any_value_goes_on_unsearched_and_says_so(value, judge, tmp_path):
    """There is no reward of the end that could be wrong: the item is a plain draw, and its row tells how often."""
    judge(broken=value)
    code, rows = run(tmp_path, "method=svdd", "sampler=ddim_ancestral", "sampler.steps=3")
    assert code == 0
    assert rows.loc["a red circle", "info_unvalued"] == "1 1 nan"
    assert rows.loc["a blue square", "info_unvalued"] == ""


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_search_never_chooses_the_candidate_without_a_value(value, judge, tmp_path):
    judge(broken=value, child=True)
    code, rows = run(tmp_path, "method=svdd", "sampler=ddim_ancestral", "sampler.steps=3", "run.batch_size=8")
    assert code == 0
    assert "info_unvalued" not in rows


@pytest.mark.parametrize("value", [torch.inf])
def test_a_gradient_that_is_no_number_leaves_its_steps_unguided(value, judge, tmp_path):
    judge()
    _, plain = run(tmp_path / "plain", "method=none")
    judge(gradient=value)
    code, rows = run(tmp_path / "guided", "method=dps")
    assert code == 0
    assert rows.loc["a red circle", "status"] == "ok"
    assert rows.loc["a red circle", "nonfinite_gradients"] == 3
    assert rows.loc["a blue square", "nonfinite_gradients"] == 0
    pictures = [
        picture(tmp_path / name, found, "a red circle")
        for name, found in (("plain", plain), ("guided", rows))
    ]
    assert pictures[0] == pictures[1]
    assert picture(tmp_path / "plain", plain, "a blue square") != picture(
        tmp_path / "guided", rows, "a blue square"
    )


def test_a_run_that_ran_out_of_memory_ends_like_one_of_smaller_calls(tmp_path, monkeypatch):
    from align.backbones.unet import UNetBackbone

    more = ["prompts.limit=8", "run.in_flight=8"]
    assert main([*CHEAP, *more, "run.batch_size=2", f"run.folder={tmp_path / 'small'}"]) == 0
    predict = UNetBackbone.predict
    sizes = Counter()

    def limited(self, z, *given, **named):
        sizes[len(z)] += 1
        if len(z) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return predict(self, z, *given, **named)

    monkeypatch.setattr(UNetBackbone, "predict", limited)
    assert main([*CHEAP, *more, "run.batch_size=8", f"run.folder={tmp_path / 'large'}"]) == 0
    assert sizes[8] == sizes[4] == 1
    assert files(tmp_path / "large") == files(tmp_path / "small")


def test_prompts_of_any_kind_are_drawn_measured_and_shown(tmp_path):
    """Hostile, empty, too long and repeated ones through the real tokenizer, the real rewards and the page."""
    prompts = [*HOSTILE, "a red circle", ""]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts))
    command = ["prompts=file", f"prompts.path={tmp_path / 'prompts.jsonl'}", "sampler.steps=1"]
    more = ["metrics=shapes", "run.gallery=true", "run.threads=1", f"run.folder={tmp_path / 'run'}"]
    assert main([*command, *more]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.jsonl", "run"]
    rows = read_csv(tmp_path / "run" / "results.csv")
    assert list(rows["prompt"]) == prompts
    assert set(rows["status"]) == {"ok"}
    assert rows["shapes_pick"].notna().all()
    cut = rows.set_index("prompt")["prompt_truncated"]
    assert cut["word " * 300] == cut["x" * 10_000] == 1
    assert cut["a/b/c"] == 0
    names = [picture_name(row.key, row.seed, row.sample) for row in rows.itertuples()]
    assert list(rows["image"]) == [f"images/{name}" for name in names]
    for twice in ("a red circle", ""):
        of = rows[rows["prompt"] == twice]
        assert list(of["sample"]) == [0, 1]
        assert len({(tmp_path / "run" / image).read_bytes() for image in of["image"]}) == 2
    page = (tmp_path / "run" / "gallery.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    table = (tmp_path / "run" / "results.csv").read_text(encoding="utf-8")
    assert not [line for line in table.splitlines() if line.split(",")[1][:1] in set("=+-@")]
