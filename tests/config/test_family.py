"""Numbers that a method has another value of for each kind of model."""

import pytest

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError


def method(*overrides):
    return jobs_of(parse(["method=dymo", *overrides]))[0].config.method


def test_a_method_takes_the_published_settings_of_the_backbones_family():
    assert method("backbone.family=sdxl").guidance.coefficient == (1, 1, 3)
    assert method("backbone.family=sd15").guidance.coefficient == (1.5, 1, 1)
    assert method().objective.copies == 0
    assert method("backbone.family=sd15").objective.copies == 10


def test_the_command_line_has_the_last_word():
    assert method("backbone.family=sdxl", "method.guidance.coefficient=[1,2,3]").guidance.coefficient == (
        1,
        2,
        3,
    )


def test_one_number_stands_for_all_three_phases():
    assert method("method.guidance.coefficient=2").guidance.coefficient == (2, 2, 2)
    assert method("method.recurrence.rounds=4").recurrence.rounds == (4, 4, 4)


def test_a_family_without_a_value_is_named(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text(
        "name: mine\nguidance:\n  rule: correction\n  strength: ${by_family:{sd15:2.0}}\n"
    )
    with pytest.raises(
        ConfigError, match=r"method\.guidance\.strength.*backbone\.family=shapes, only for sd15"
    ):
        jobs_of(parse(["method=mine", "--config-dir", str(tmp_path)]))


def test_a_distilled_family_takes_its_origins_numbers_unless_it_has_its_own(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text(
        "name: mine\nguidance:\n  strength: ${by_family:{sd15:2.0}}\nclean:\n  rate: ${by_family:{sd15:2.0,lcm:3.0}}\n"
    )
    own = ["method=mine", "--config-dir", str(tmp_path), "backbone=lcm"]
    mine = jobs_of(parse(own))[0].config.method
    assert (mine.guidance.strength, mine.clean.rate) == (2, 3)


def test_the_consistency_model_brings_its_process():
    config = jobs_of(parse(["backbone=lcm"]))[0].config
    assert (config.sampler.kind, config.sampler.steps, config.sampler.guidance_scale) == ("lcm", 8, 7.5)
    assert (config.reward.terms, config.metrics.name) == ({"pickscore": 1}, "paper")


@pytest.mark.parametrize(("name", "guide"), [("sd15", "spm_sd15"), ("dpo_sdxl", "spm_sdxl")])
def test_a_backbone_brings_what_goes_with_it(name, guide):
    config = jobs_of(parse([f"backbone={name}", "method=dymo"]))[0].config
    assert config.reward.terms == {guide: 1}
    assert (config.metrics.name, config.prompts.name) == ("paper", "objects_demo")
    assert (config.sampler.steps, config.sampler.eta, config.semantics.source) == (50, 1, "auto")


def test_what_a_backbone_brings_can_be_chosen_otherwise():
    chosen = ["reward=pickscore", "metrics=none", "prompts=shapes_demo", "sampler=ddim"]
    config = jobs_of(parse(["backbone=sd15", *chosen]))[0].config
    names = (config.reward.name, config.metrics.name, config.prompts.name, config.sampler.name)
    assert names == ("pickscore", "none", "shapes_demo", "ddim")
    preset = jobs_of(parse(["backbone=sd15", "experiment=shapes_pair"]))[0].config
    assert preset.prompts.name == "shapes_pair"


@pytest.mark.parametrize("name", ["dymo", "dymo_released"])
@pytest.mark.parametrize(("family", "counts"), [("sd15", [8, 17, 25, 0]), ("sdxl", [8, 17, 21, 4])])
def test_dymos_phases_are_the_released_ones_at_fifty_steps(name, family, counts):
    phases = jobs_of(parse([f"method={name}", f"backbone.family={family}"]))[0].config.method.objective.phases
    fractions = [(981 - 20 * k) / 1000 for k in range(50)]
    until = (phases.semantic_until, phases.both_until, phases.preference_until, 0)
    reached = [sum(fraction >= limit for fraction in fractions) for limit in until]
    assert [now - before for before, now in zip([0, *reached], reached, strict=False)] == counts
