"""The experiments das_* are the shipped commands of DAS's code (arXiv 2501.05803): its numbers, in our rewards' units."""

import pytest

from align.config.errors import ConfigError
from align.config.places import conf_folder, group_choices
from align.runner.prompts import load_prompts

from .test_conf_files import compose

SAMPLER = {  # kind, steps, eta, guidance scale, gamma, pictures, rows of a call
    "sd15": ("ddim", 100, 1.0, 5.0, 0.008, 2, 2),
    "sdxl": ("ddim", 100, 1.0, 5.0, 0.008, 2, 1),
    "lcm": ("lcm", 8, 1.0, 7.5, 0.1, 4, 1),
}
REWARD = {  # terms, published alpha, our units over the published ones, prompts
    "aesthetic": ({"aesthetic": 1.0}, 0.005, 1, "animals_10"),
    "pick": ({"pickscore": 1.0}, 0.0001, 100, "hpdv2_photo_50"),
    "multi": ({"aesthetic": 1.0}, 0.005, 1, "hpdv2_photo_50"),
    "clip": ({"clipscore": 20.0}, 0.01, 1, "hpdv2_photo_50"),
}
CASES = [(backbone, reward) for backbone in SAMPLER for reward in REWARD]


def test_they_are_all_there():
    found = {name for name in group_choices("experiment") if name.startswith("das_")}
    assert found == {f"das_{backbone}_{reward}" for backbone, reward in CASES}


@pytest.mark.parametrize(("backbone", "reward"), CASES)
def test_its_numbers_are_the_published_ones(backbone, reward):
    config = compose(f"experiment=das_{backbone}_{reward}")
    kind, steps, eta, scale, gamma, pictures, rows = SAMPLER[backbone]
    terms, alpha, unit, prompts = REWARD[reward]
    sampler, method, ladder = config.sampler, config.method, config.method.tempering
    assert config.backbone.name == backbone
    assert (sampler.kind, sampler.steps, sampler.eta, sampler.guidance_scale) == (kind, steps, eta, scale)
    assert (method.name, method.particles, method.returned, method.choose) == ("das", 4, 1, "draw")
    assert (method.resampling.scheme, method.resampling.threshold) == ("ssp", 0.5)
    assert (ladder.rule, ladder.schedule, ladder.gamma, ladder.start) == ("schedule", "exp", gamma, 0.0)
    assert ladder.alpha == pytest.approx(alpha * unit)
    assert not method.quirks
    assert (method.guidance.rule, method.guidance.strength) == ("variance", 1.0)
    assert config.reward.terms == terms
    assert config.seed == 42
    assert config.run.batch_size == rows
    assert config.prompts.name == prompts
    found = load_prompts(config.prompts)
    assert len(found.whole) == int(prompts.rpartition("_")[2])
    assert len(found.prompts) == pictures


@pytest.mark.parametrize(("backbone", "reward"), [("sd15", "pick"), ("sdxl", "multi"), ("lcm", "clip")])
def test_the_released_faults_are_one_option_away(backbone, reward):
    eta = ["sampler.eta=0.5"] if backbone == "lcm" else []
    config = compose(f"experiment=das_{backbone}_{reward}", "method=das_released", *eta)
    assert config.method.quirks == ("stale_gradients", "published_ladder", "lcm_variances")
    assert config.method.choose == "weight"
    mended = compose(f"experiment=das_{backbone}_{reward}")
    assert config.method.tempering.alpha == mended.method.tempering.alpha
    assert config.sampler.eta == (0.5 if eta else 1.0)


@pytest.mark.parametrize(
    ("backbone", "steps", "gamma"),
    [
        ("shapes", 25, 0.04),
        ("sd15", 100, 0.008),
        ("sdxl", 100, 0.008),
        ("lcm", 8, 0.1),
        ("toy_gmm", 100, 0.008),
    ],
)
def test_the_ladder_is_the_published_gamma_of_its_steps_and_full_at_others(backbone, steps, gamma):
    options = [f"backbone={backbone}", "sampler.eta=1", "reward=sum", "reward.terms.aesthetic=1"]
    ladder = compose("method=das", *options).method.tempering
    assert ladder.growth(steps) == gamma
    assert (1 + ladder.growth(2 * steps)) ** (ladder.full_at * 2 * steps) - 1 == pytest.approx(1, abs=1e-5)
    released = compose("method=das_released", *options).method.tempering
    assert (released.gamma, released.full_at, released.growth(steps)) == (gamma, None, gamma)


def test_a_consistency_model_reads_eta_in_released_das_alone():
    with pytest.raises(ConfigError, match=r"sampler.eta=0.5"):
        compose("experiment=das_lcm_pick", "sampler.eta=0.5")


@pytest.mark.parametrize(("backbone", "reward"), CASES)
def test_it_names_its_command(backbone, reward):
    name = f"das_{backbone}_{reward}"
    text = (conf_folder() / "experiment" / f"{name}.yaml").read_text()
    assert f"# python -m align experiment={name}\n" in text
    assert "arXiv 2501.05803" in text
    assert f"4 particles x {SAMPLER[backbone][1]} steps" in text


@pytest.mark.parametrize("name", ["animals_10", "hpdv2_photo_50"])
def test_the_prompts_are_pinned(name):
    config = compose("backbone=sd15", f"prompts={name}").prompts
    assert config.sha256 is not None
    prompts = load_prompts(config).prompts
    assert len(set(prompts)) == len(prompts) == int(name.rpartition("_")[2])
    assert all(prompt == prompt.strip() != "" for prompt in prompts)
