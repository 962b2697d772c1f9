"""Recorded training steps of SPO's preference model: from pictures and draws to the weights after the step."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from align.backbones.base import Conditioning
from align.backbones.guider import Guider
from align.rewards.clip import clip_config
from align.rewards.preprocess import fit, normalise
from align.rewards.step_aware import load_step_aware_model
from align.training.encoding import scaled
from align.training.loop import Recipe, train
from align.training.spm import Judged, Looks, Saved, Spm, from_clip

from .replay import CPU, parameters, tiny_backbone

SIZE = 96


def pytest_generate_tests(metafunc):
    folder = metafunc.config.getoption("--golden")
    found = sorted((folder / "spo").glob("spm_step*.safetensors")) if folder else []
    metafunc.parametrize("case", parameters([(folder, path.stem) for path in found]), scope="module")


class Lesson(Spm):
    """One round of the recorded pairs."""

    def collect(self, round_, ranks):
        return self.judged


class Run:
    def __init__(self, folder, name, out):
        self.tensors = tensors = load_file(folder / f"spo/{name}.safetensors")
        self.facts = json.loads((folder / f"spo/{name}.json").read_text())
        self.config = self.facts["config"]
        whole = folder / "dymo/spm_tiny"
        self.model = load_step_aware_model(clip_config(whole), whole / "spm.safetensors")
        if name.endswith("_start"):
            from_clip(dict(self.model.named_parameters()), self.model, seed=0)
            start = {
                key.removeprefix("start."): one for key, one in tensors.items() if key.startswith("start.")
            }
            for key, one in self.model.named_parameters():
                if key in start:
                    one.data = start[key].clone()
        trained = Saved(self.model, {})
        backbone = tiny_backbone(folder / "tiny/tiny-sd", SIZE, SIZE)
        self.prompts = [f"{k}" for k in range(len(self.facts["prompts"]))]

        def conditioning(prompts):
            rows = [int(prompt) for prompt in prompts]
            negative = tensors["negative_prompt_embeds"].expand(len(rows), -1, -1)
            return Conditioning(tensors["prompt_embeds"][rows], negative)

        looks = Looks(backbone, Guider(self.config["guidance"]), conditioning, CPU)
        size = self.model.config.vision_config.image_size
        self.lesson = Lesson(
            None, None, looks, self.model, lambda prompt: tensors["score_input_ids"][int(prompt)], size, 0
        )
        self.lesson.judged = self.judged(looks, backbone.vae)
        self.before = {key: one.detach().clone() for key, one in self.model.named_parameters()}
        value, _ = self.lesson.loss(self.lesson.judged)
        self.loss = float(value.detach())
        value.backward()
        self.gradients = {key: one.grad for key, one in self.model.named_parameters()}
        self.scores = self.lesson.scores(self.lesson.judged).detach()
        for one in self.model.parameters():
            one.grad = None
        recipe = Recipe(
            rounds=1,
            batch=len(self.prompts),
            learning_rate=self.config["learning_rate"],
            weight_decay=self.config["weight_decay"],
            clip=self.config["max_grad_norm"],
        )
        train(self.lesson, trained, recipe, out)

    def judged(self, looks, vae):
        """The pairs as they are seen under the recorded noise, and their labels."""
        sides = []
        for side in (0, 1):
            pictures = self.tensors[f"pictures_{side}"].float() / 255 * 2 - 1
            with torch.no_grad():
                posterior = vae.encode(pictures).latent_dist
            latents = scaled(
                posterior.mean + posterior.std * self.tensors[f"posterior_noise_{side}"], vae.config
            )
            times = self.tensors["timesteps"].tolist()
            sides.append(looks(latents, self.tensors["noise"], times, self.prompts))
        self.sides = sides
        return [
            Judged(
                prompt,
                prompt,
                torch.stack([side[k] for side in sides]),
                int(self.tensors["timesteps"][k]),
                float(self.tensors["label_0"][k]),
                weight=1 / float(self.tensors["examples_of_prompt"][k]),
            )
            for k, prompt in enumerate(self.prompts)
        ]


@pytest.fixture(scope="module")
def run(case, tmp_path_factory):
    return Run(*case, tmp_path_factory.mktemp("spm"))


def near(ours, recorded, limit):
    assert float((ours - recorded).abs().max()) <= limit


def test_what_is_seen(run):
    near(2 * run.sides[0][0] - 1, run.tensors["decoded_0_first"], 1e-4)
    for side in (0, 1):
        pixels = normalise(fit(run.sides[side].clamp(0, 1), run.lesson.size, "spo"))
        # Rounding of eps is several times as large in predictions of clean latents from noise, and four times in units of pixels.
        near(pixels, run.tensors[f"pixel_values_{side}"], 5e-5)


def test_loss_and_probabilities(run):
    assert run.loss == pytest.approx(float(run.tensors["loss"]), abs=1e-4)
    near(F.softmax(run.scores, dim=-1)[:, 0], run.tensors["probability_0"], 1e-4)


def test_gradients(run):
    largest = max(norm for norm in run.facts["gradient_norms"].values() if norm is not None)
    for name, norm in run.facts["gradient_norms"].items():
        ours = run.gradients[name]
        ours_norm = 0.0 if ours is None else float(ours.norm())
        assert ours_norm == pytest.approx(norm or 0.0, rel=1e-3, abs=1e-6 * largest), name
    whole = torch.stack([one.norm() for one in run.gradients.values() if one is not None]).norm()
    assert float(whole) == pytest.approx(run.facts["gradient_norm"], rel=1e-3)


def test_the_weights_move_as_recorded(run):
    now = dict(run.model.named_parameters())
    changes = {
        key.removeprefix("change."): one for key, one in run.tensors.items() if key.startswith("change.")
    }
    assert changes
    for name, recorded in changes.items():
        gradient = run.tensors[f"grad.{name}"]
        sure = gradient.abs() > 1e-5 * gradient.abs().max()
        apart = (now[name].detach() - run.before[name] - recorded) / run.config["learning_rate"]
        assert float((apart * sure).abs().max()) <= 0.05, name
