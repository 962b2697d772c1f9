"""A recorded run of the released DyMO code (tiny random models, one view) through our own parts.

Needs ``--golden DIR``: a folder with ``dymo/trace_sd_aug_off.*``, ``dymo/spm_tiny`` and ``tiny/tiny-sd``.
"""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from align.backbones.base import Conditioning
from align.backbones.unet import UNetBackbone
from align.processes.ddim import DDIM
from align.rewards.step_aware import load_step_aware
from align.sampling.evaluate import Evaluator, Pictures
from align.sampling.guidance import Guidance
from align.sampling.ledger import Ledger
from align.sampling.loop import Parts, run, start
from align.sampling.objective import Objective
from align.sampling.recurrence import Recurrence
from align.sampling.state import State
from align.semantics.attention_loss import pair_weights, semantic_loss
from align.semantics.graph import Entity, Graph
from align.semantics.tokens import token_pairs

CPU = torch.device("cpu")
TRACE = "trace_sd_aug_off"


def far(ours, recorded):
    """Largest difference over the largest magnitude of what was recorded."""
    ours, recorded = torch.as_tensor(ours), torch.as_tensor(recorded)
    return float((ours - recorded).abs().max() / recorded.abs().max())


def first_words(graph):
    """The recorded graph as spans of the first occurrences of its words."""
    prompt = graph["prompt"].lower()

    def span(word):
        begin = prompt.index(word)
        return begin, begin + len(word)

    return Graph(
        tuple(
            Entity(span(noun), tuple(map(span, attributes)))
            for entry in graph["knowledge"]
            for noun, attributes in entry.items()
        )
    )


class Recorded:
    """The trace's draws in place of a noise stream."""

    def __init__(self, tensors):
        self.tensors = tensors

    def normal(self, purpose, step, round, shape):
        key = {
            "initial": "init/latents",
            "step": f"s{step:02d}/k{round:02d}/variance_noise",
            "renoise": f"s{step:02d}/k{round:02d}/renoise_noise",
        }[purpose]
        return self.tensors[key][0]


@pytest.fixture(scope="module")
def replay(golden):
    if golden is None:
        pytest.skip("needs --golden DIR")
    tensors = load_file(golden / f"dymo/{TRACE}.safetensors")
    facts = json.loads((golden / f"dymo/{TRACE}.json").read_text())
    backbone = UNetBackbone.from_folder(golden / "tiny/tiny-sd", CPU, height=128, width=128)
    with torch.no_grad():
        for name, parameter in backbone.unet.named_parameters():
            if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
                parameter *= facts["attn_gain"]
    reward = load_step_aware(
        "spm_tiny", golden / "dymo/spm_tiny", golden / "tiny/tiny-sd/tokenizer", file="spm.safetensors"
    )
    prompt = facts["prompt_used"]
    read = backbone.encode(prompt, "")
    pairs = token_pairs(first_words(facts["graph"]), read.offsets, read.limit)
    # Phases 0 and 1 end with the steps of index time1 = 2 (t = 801) and time2 = 5 (t = 501).
    objective = Objective(preference=1, semantic=10, semantic_until=0.75, both_until=0.45, score="released")
    return SimpleNamespace(
        tensors=tensors,
        facts=facts,
        backbone=backbone,
        reward=reward,
        read=read,
        pairs=pairs,
        objective=objective,
        evaluate=Evaluator(backbone, 7.5, 1, objective, reward),
        process=DDIM(backbone.scheduler_config, 10, 1.0),
        guidance=Guidance(1.0, (1.5, 1.0, 1.0)),
        recurrence=Recurrence("gradient_norm", rate=(1.0, 1.0, 3.0), cap=1000),
        pictures=Pictures(
            [prompt],
            Conditioning.of([read]),
            pair_weights([pairs], len(read.offsets)),
            torch.tensor([True]),
        ),
    )


def test_the_same_tokens_are_paired(replay):
    assert [list(pair) for pair in replay.pairs.positive] == replay.facts["positive_pairs"]
    assert [list(pair) for pair in replay.pairs.negative] == replay.facts["negative_pairs"]


def test_the_same_embeddings_are_read(replay):
    ours = torch.stack([replay.read.negative, replay.read.prompt])
    assert far(ours, replay.tensors["init/prompt_embeds"]) < 1e-4


def test_the_older_layout_of_a_tokenizer_reads_the_same(replay, golden, tmp_path):
    facts = json.loads((golden / "tiny/tiny-sd/tokenizer/tokenizer.json").read_text())["model"]
    merges = [one if isinstance(one, str) else " ".join(one) for one in facts["merges"]]
    (tmp_path / "vocab.json").write_text(json.dumps(facts["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    config = (golden / "tiny/tiny-sd/tokenizer/tokenizer_config.json").read_text()
    (tmp_path / "tokenizer_config.json").write_text(config)
    old, new = CLIPTokenizer.from_pretrained(tmp_path), replay.backbone.text.encoders[0].tokenizer
    for text in ("Don't! two  red\tcubes, caf\u00e9 \U0001f600 3.14", replay.facts["prompt_used"], ""):
        ours = [one(text, return_offsets_mapping=True) for one in (old, new)]
        assert ours[0]["input_ids"] == ours[1]["input_ids"]
        assert ours[0]["offset_mapping"] == ours[1]["offset_mapping"]


def test_phases_are_those_of_the_step_indices(replay):
    ours = [replay.objective.terms(step).phase + 1 for step in replay.process.steps]
    assert ours == [step["phase"] for step in replay.facts["steps"]]


def test_every_evaluation_fed_with_the_recorded_latents(replay):
    limits = {
        "eps": 1e-4,
        "x0": 1e-4,
        "correction_norm": 1e-4,
        "attention": 1e-4,
        "picture": 1e-4,
        "scores": 1e-4,
        "semantic_loss": 1e-3,
        "total_loss": 1e-3,
        "gradient": 1e-3,
        "rho": 1e-3,
        "latents_out": 1e-4,
        "renoised": 1e-4,
    }
    worst = dict.fromkeys(limits, 0.0)
    for record in replay.facts["evaluations"]:
        recorded = {
            key.removeprefix(record["prefix"]): value
            for key, value in replay.tensors.items()
            if key.startswith(record["prefix"])
        }
        step = replay.process.steps[record["step"]]
        assert step.t == record["t"]
        z = recorded["latents_in"]
        state = State(
            z,
            torch.zeros(1, dtype=torch.long),
            torch.zeros(1),
            recorded.get("pred_x0_prev", torch.full_like(z, torch.nan)),
        )
        found = replay.evaluate(state, replay.pictures, step, Ledger(1))
        terms = replay.objective.terms(step)
        with torch.no_grad():
            maps = replay.backbone.predict(z, step, replay.pictures.conditioning, 7.5, "both").attention
            picture = replay.backbone.decode(found.x0)
            scores = replay.reward.score(picture, replay.pictures.prompts, torch.tensor([step.t]))
        proposal = replay.process.kernel(found.x0, found.eps, step)
        shift = replay.guidance.shift(found, terms)
        out = proposal.shifted(shift).sample(recorded["variance_noise"])
        differences = {
            "eps": far(found.eps, recorded["eps"]),
            "x0": far(found.x0, recorded["pred_x0"]),
            "correction_norm": far(found.correction.norm(), record["correction_norm"]),
            "attention": far(maps[0], recorded["attn"]),
            "scores": far(scores, recorded["scores"]),
            "semantic_loss": abs(
                float(semantic_loss(maps, replay.pictures.pair_weights)) - record["loss_cos"]
            ),
            "total_loss": far(-found.value[0], record["total_loss"]),
            "gradient": far(found.gradient, recorded["grad"]),
            "rho": far(shift.norm() / found.gradient_norm[0], record["rho"]),
            "latents_out": far(out, recorded["latents_out"]),
        }
        if "decoded_x0" in recorded:
            differences["picture"] = far(2 * picture - 1, recorded["decoded_x0"])
        if "renoised" in recorded:
            renoised = replay.process.renoise(out, step, recorded["renoise_noise"])
            differences["renoised"] = far(renoised, recorded["renoised"])
        if record["decides_rounds"]:
            assert int(replay.recurrence.extra(found, terms)) == record["num_optimization"]
        worst = {name: max(value, differences.get(name, 0.0)) for name, value in worst.items()}
    print("teacher-forced:", {name: f"{value:.1e}" for name, value in worst.items()})
    assert {name: value for name, value in worst.items() if not value <= limits[name]} == {}


def test_the_whole_run_from_the_recorded_draws(replay):
    latents = []

    class Watching(Evaluator):
        def __call__(self, state, *rest):
            latents.append(state.z)
            return super().__call__(state, *rest)

    evaluate = Watching(replay.backbone, 7.5, 1, replay.objective, replay.reward)
    parts = Parts(evaluate, replay.process, replay.guidance, replay.recurrence)
    draws = Recorded(replay.tensors)
    rounds, ledger = [0] * 10, Ledger(1)

    def count(info):
        rounds[info.step.index] = info.round

    state = start(lambda *_: draws, 1, 1, replay.backbone.latent_shape(), CPU)
    state = run(parts, state, replay.pictures, lambda *_: draws, ledger, on_evaluation=count)
    assert rounds == [step["rounds"] for step in replay.facts["steps"]]
    assert ledger.costs[0].network_backward == len(replay.facts["evaluations"])
    with torch.no_grad():
        picture = 2 * replay.backbone.decode(state.z) - 1
    differences = {
        "latents": max(
            far(z, replay.tensors[f"{record['prefix']}latents_in"])
            for z, record in zip(latents, replay.facts["evaluations"], strict=True)
        ),
        "final latents": far(state.z, replay.tensors["final/latents"]),
        "final picture": far(picture, replay.tensors["final/image"]),
    }
    print("whole run:", {name: f"{value:.1e}" for name, value in differences.items()})
    assert max(differences.values()) < 5e-3
