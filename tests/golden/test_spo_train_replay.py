"""Recorded runs of SPO's released training scripts: from the recorded draws on, everything by our own loop.

Their gradients are not clipped, by a defect; as none of their norms exceeds the limit, ours are not cut either.
"""

import json
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.processes.ddim import ddim
from align.rewards.clip import clip_config
from align.rewards.step_aware import StepAwareReward, load_step_aware_model
from align.training import loop
from align.training.loop import Recipe, train
from align.training.lora import FILE, Lora
from align.training.policy import Policy
from align.training.spo import Preferences, Spo, choose, compare, pairs_of, per_prompt

from .replay import CPU, SLIM, TESTS, parameters, tiny_backbone

B = 2
"""Prompts of a batch; they are named by batch and place."""


def pytest_generate_tests(metafunc):
    given = metafunc.config.getoption("--golden")
    cases = [
        (folder, path.stem)
        for folder in [SLIM, *([given] if given else [])]
        for path in sorted((folder / "spo").glob("spo_*.safetensors"))
    ]
    metafunc.parametrize("case", parameters(cases, soon=("spo_sd", "spo_sdxl")), scope="module")


@dataclass
class Recorded:
    """The recorded draws of a prompt."""

    tensors: dict
    prompt: str
    candidates: int

    def found(self, name):
        batch, b = self.prompt.split()
        return self.tensors[f"batch{batch}.{name}"], int(b)

    def normal(self, purpose, step, round, shape):
        if purpose == "initial":
            tensor, b = self.found("init_latents")
            return tensor[b]
        k = int(purpose.partition(", candidate ")[2] or 0)
        tensor, b = self.found(f"step{step}.noise")
        return tensor.view(-1, B, *shape)[k, b]

    def uniform(self, purpose, step, round, shape):
        tensor, b = self.found(f"step{step}.continued")
        return (tensor[b].double().view(1) + 0.5) / self.candidates


class Replayed(Spo):
    """The lesson on recorded draws, which keeps what it finds."""

    def collect(self, round_, ranks):
        prompts = [f"{round_} {b}" for b in range(B)]
        noises = [self.noise(prompt, 0) for prompt in prompts]
        found = list(compare(self.policy, self.reward, prompts, noises, self.how))
        self.comparisons.append(found)
        self.pairs.append([pair for one in found for pair in pairs_of(one, prompts, self.how.threshold)])
        return self.pairs[-1]

    def log_probs(self, pairs):
        found = super().log_probs(pairs)
        self.found.append(found.detach())
        return found

    def loss(self, examples):
        value, figures = super().loss(examples)
        self.losses.append(float(value.detach()))
        return value, figures


def conditioning(tensors, prompts):
    def own(name):
        rows = [(f"batch{batch}.{name}", int(b)) for batch, b in (prompt.split() for prompt in prompts)]
        return torch.stack([tensors[key][b] for key, b in rows]) if rows[0][0] in tensors else None

    def shared(name):
        return tensors[name].expand(len(prompts), *tensors[name].shape[1:]) if name in tensors else None

    return Conditioning(
        own("prompt_embeds"),
        shared("negative_prompt_embeds"),
        own("pooled_prompt_embeds"),
        shared("negative_pooled_prompt_embeds"),
        shared("time_ids"),
    )


def scorer(folder, tensors):
    whole, slim = folder / "dymo/spm_tiny", TESTS / "rewards/data/spm_tiny"
    there = whole.is_dir()
    weights = whole / "spm.safetensors" if there else slim / "model.safetensors"
    config = clip_config(whole if there else slim)
    model = load_step_aware_model(config, weights).requires_grad_(False).eval()

    def read(prompt):
        batch, b = prompt.split()
        if not there:  # the slim copy has no text tower
            return tensors[f"batch{batch}.score_text"][int(b)]
        return model.read(tensors[f"batch{batch}.score_input_ids"][[int(b)]])[0]

    scale, size = float(model.logit_scale.exp()), config.vision_config.image_size
    return StepAwareReward("spm", model, model.see, read, scale, size, "spo", torch.float32, CPU, {})


class Run:
    """A recorded run, and ours from its draws."""

    def __init__(self, folder, name, out):
        self.tensors = tensors = load_file(folder / f"spo/{name}.safetensors")
        self.facts = json.loads((folder / f"spo/{name}.json").read_text())
        self.config = config = self.facts["config"]
        backbone = tiny_backbone(folder / "tiny" / ("tiny-sdxl" if "sdxl" in name else "tiny-sd"), 128, 128)
        lora = Lora(backbone.network, "unet", config["lora_rank"], config["lora_modules"])
        for key, one in lora.parameters().items():
            one.data = tensors[f"lora_start.{key}"].clone()
        process = ddim(backbone.scheduler_config, config["steps"], config["eta"])
        self.policy = Policy(
            backbone,
            lora,
            process,
            Guider(config["guidance"]),
            lambda prompts: conditioning(tensors, prompts),
            CPU,
            most=64,
        )
        names = ("candidates", "threshold", "divert_start_step", "inner_steps", "beta", "clip")
        how = Preferences(*(config[name] for name in names))
        self.lesson = Replayed(
            self.policy,
            scorer(folder, tensors),
            None,
            how,
            lambda prompt, _: Recorded(tensors, prompt, how.candidates),
        )
        self.lesson.comparisons, self.lesson.pairs, self.lesson.found, self.lesson.losses = [], [], [], []
        self.gradients, self.weights = [], []
        recipe = Recipe(
            rounds=len(self.facts["log"]["batches"]),
            batch=config["train_batch"],
            learning_rate=config["learning_rate"],
            accumulation=config["accumulation"],
            weight_decay=config["weight_decay"],
            clip=config["max_grad_norm"],
        )
        hooks = [
            register_optimizer_step_pre_hook(lambda *_: self.gradients.append(self.copied("grad"))),
            register_optimizer_step_post_hook(lambda *_: self.weights.append(self.copied("data"))),
        ]
        self.folder = out
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "keyed_order", self.recorded_order)
            self.progress = train(self.lesson, lora, recipe, out)
        for hook in hooks:
            hook.remove()

    def copied(self, what):
        return {name: getattr(one, what).clone() for name, one in self.policy.lora.parameters().items()}

    def recorded_order(self, pairs, key, seed, what, round_):
        return [pairs[k] for k in self.tensors[f"batch{round_}.permutation"].tolist()]


@pytest.fixture(scope="module")
def run(case, tmp_path_factory):
    return Run(*case, tmp_path_factory.mktemp("spo"))


def near(ours, recorded, limit):
    assert float((ours - recorded).abs().max()) <= limit


def test_the_same_candidates_win_and_lose_and_are_kept(run):
    for batch, found in enumerate(run.lesson.comparisons):
        for number, one in enumerate(found):
            recorded = {
                what: run.tensors[f"batch{batch}.pair{number}.{what}"] for what in ("scores", "pair", "valid")
            }
            near(one.scores, recorded["scores"], 1e-3)
            winner, loser, valid = choose(one.scores, run.config["threshold"])
            assert torch.equal(torch.stack([winner, loser]), recorded["pair"])
            assert torch.equal(valid, recorded["valid"])
        assert f"batch{batch}.pair{len(found)}.scores" not in run.tensors


def test_the_pairs_are_those_collected_in_their_order(run):
    steps = run.policy.process.steps
    for batch, pairs in enumerate(run.lesson.pairs):
        assert [steps[pair.step].timestep for pair in pairs] == run.tensors[
            f"batch{batch}.pairs.timesteps"
        ].tolist()
    pairs = run.lesson.pairs[0]
    if "batch0.pairs.latents" in run.tensors:
        latents = torch.stack([pair.z.expand(2, *pair.z.shape[1:]) for pair in pairs])
        recorded = run.tensors["batch0.pairs.latents"]
        near(latents, recorded if recorded.ndim == latents.ndim else recorded[:, None], 1e-4)
        near(torch.stack([pair.z_next for pair in pairs]), run.tensors["batch0.pairs.next_latents"], 1e-4)


def test_probabilities_and_losses(run):
    minis = run.facts["log"]["mini_batches"]
    assert len(run.lesson.losses) == len(minis)
    references, policies = run.lesson.found[0::2], run.lesson.found[1::2]
    for mini, ours, reference, loss in zip(minis, policies, references, run.lesson.losses, strict=True):
        place = f"batch{mini['batch']}.mini{mini['mini']}"
        for found, ending in ((ours, ""), (reference, "_ref")):
            for row, who in enumerate(("win", "lose")):
                near(found[row], run.tensors[f"{place}.logp_{who}{ending}"], 1e-5)
        assert loss == pytest.approx(mini["loss"], abs=1e-5)


def test_gradients_and_the_weights_after_each_update(run):
    steps = run.facts["log"]["optimizer_steps"]
    assert run.progress.update == len(run.gradients) == len(steps)
    sure = {}
    for update, (gradients, step) in enumerate(zip(run.gradients, steps, strict=True)):
        norm = torch.stack([one.norm() for one in gradients.values()]).norm()
        assert float(norm) == pytest.approx(step["grad_norm"], rel=1e-4)
        largest = max(float(one.abs().max()) for one in gradients.values())
        for name, ours in gradients.items():
            recorded = run.tensors.get(f"update{update}.grad.{name}")
            if recorded is not None:
                near(ours, recorded, 1e-4 * largest)
                # AdamW divides a gradient by its own size: what is nothing but rounding moves as far as any other.
                sure[name] = sure.get(name, True) & (recorded.abs() > 1e-5 * largest)
                apart = run.weights[update][name] - run.tensors[f"update{update}.weight.{name}"]
                near(apart * sure[name], 0, 0.1 * run.config["learning_rate"])
    ends = [
        (one.detach() - run.tensors[f"lora_end.{name}"]).flatten()
        for name, one in run.policy.lora.parameters().items()
    ]
    apart = torch.cat(ends).abs() / run.config["learning_rate"]
    assert float((apart > 0.1 * len(steps)).float().mean()) < 1e-3
    assert float(apart.max()) < 2 * len(steps)


def test_the_file_has_the_names_that_the_script_writes(run):
    assert sorted(load_file(run.folder / "last" / FILE)) == sorted(run.facts["saved_lora"]["keys"])


def test_the_network_is_called_as_often_as_told(run):
    network, judged, most = per_prompt(run.policy.process.steps, run.lesson.how)
    for batch in run.facts["log"]["batches"]:
        assert B * network == sum(step["rows_in"] for step in batch["steps"])
        assert batch["pairs"] <= B * most
    assert judged == run.config["candidates"] * len(run.lesson.comparisons[0])
