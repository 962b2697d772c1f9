"""Every file in conf/ composes, passes the checks and says what it is."""

import re
import shlex
from functools import cache
from itertools import takewhile

import pytest

from align.commands.online import read_online
from align.commands.parser import parse
from align.config.command import Command
from align.config.compose import jobs_of
from align.config.convert import build, plain
from align.config.errors import ConfigError
from align.config.places import conf_folder, default_choices, group_choices, summary_line
from align.config.schema import GROUPS, Config
from align.runner.default_folder import in_folders
from align.runner.prompts import load_prompts
from align.shapes.grammar import caption_split
from align.shapes.grammar import parse as parse_caption

CHOICES = [
    (group, name)
    for group in GROUPS
    if group not in ("experiment", "method")
    for name in group_choices(group)
]
"""Experiments are composed by the commands that they name, methods with the experiments."""
MORE = {
    ("backbone", "alignprop_sd15"): ["backbone.lora=mine.safetensors"],
    ("sampler", "lcm"): ["backbone=lcm"],
    **{("sampler", name): ["backbone=toy_flow_gmm"] for name in group_choices("sampler") if "flow" in name},
    ("prompts", "text"): ['prompts.text=["a red circle"]'],
    ("prompts", "file"): ["prompts.path=prompts.txt", "run.folder=mine"],
    ("semantics", "file"): ["semantics.path=graphs"],
    ("semantics", "llm"): ["semantics.local=model"],
    ("reward", "sum"): ["reward.terms.shapes_pick=1", "reward.terms.shapes_hps=0.5"],
}

KINDS = {  # what decides which methods are defined: the sampler, and whether there are prompts and a correction by them
    "picture": (
        "shapes_demo",
        "shapes_compare",
        "dymo_tables_shapes",
        "das_sd15_pick",
        "das_sdxl_multi",
        "spo_sd15",
    ),
    "consistency": ("das_lcm_aesthetic", "das_lcm_clip", "das_lcm_multi", "das_lcm_pick"),
    "density": ("toy_gaussian", "toy_gmm", "toy_gmm2", "toy_swiss_roll"),
}
READS_PROMPTS = {"dymo", "dymo_smc", "dymo_paper", "dymo_released", "freedom", "mpgd", "ugd"}
REWORDS, WHITENS = {"promptist", "promptopt"}, {"wgnc"}
"""Methods that read attention or measure steps by the prompt's correction, those that change its words, and what whitens a spectrum: toy
densities have none of these."""


@cache
def compose(*overrides, multirun=False):
    """Checked configurations, which nothing can change: each is composed once."""
    jobs = jobs_of(parse([*overrides, *(["-m"] if multirun else [])]))
    configs = [job.config for job in in_folders(jobs)]
    return configs if multirun else configs[0]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes(group, name):
    config = compose(f"{group}={name}", *MORE.get((group, name), []))
    assert getattr(config, group).name == name
    assert build(Config, plain(config)) == config


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_says_what_it_is(group):
    for name in group_choices(group):
        assert 3 < len(summary_line(group, name)) < 90, name
        assert "_target_" not in (conf_folder() / group / f"{name}.yaml").read_text(), name


def test_the_defaults_exist_and_every_group_has_files():
    for group, name in default_choices().items():
        assert name in group_choices(group)
    assert all(group_choices(group) for group in GROUPS)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (kind, method)
        for place, method in enumerate(group_choices("method"))
        for turn, kind in enumerate(KINDS)
        if turn == 0 or method in READS_PROMPTS | REWORDS | WHITENS or turn % 2 == place % 2
    ],
)
def test_every_kind_of_experiment_takes_every_method(kind, method):
    """In turn each experiment of the kind: they differ in numbers, rewards and prompts, which no method asks about."""
    experiment = KINDS[kind][group_choices("method").index(method) % len(KINDS[kind])]
    # A consistency model has no correction either; of these methods it takes the one that is scaled otherwise.
    unfit = {"density": READS_PROMPTS | REWORDS | WHITENS, "consistency": READS_PROMPTS - {"dymo_paper"}}.get(
        kind, set()
    )
    if method in unfit:
        with pytest.raises(ConfigError, match="backbone"):
            compose(f"experiment={experiment}", f"method={method}", "sampler.eta=1")
        return
    config = compose(f"experiment={experiment}", f"method={method}", "sampler.eta=1")
    assert config.method.name == method
    assert build(Config, plain(config)) == config


@pytest.mark.parametrize("experiment", group_choices("experiment"))
def test_every_experiment_composes_and_says_its_command_and_its_cost(experiment):
    """At its head: how it is run, which is checked by resolving it, and what that takes in evaluations and in time."""
    text = (conf_folder() / "experiment" / f"{experiment}.yaml").read_text()
    head = [
        line.removeprefix("#").strip() for line in takewhile(lambda line: line[0] == "#", text.splitlines())
    ]
    config = compose(f"experiment={experiment}")
    assert build(Config, plain(config)) == config
    commands = [line for line in head if line.startswith(("python -m align ", "make "))]
    assert len(commands) == 1
    command = shlex.split(commands[0].removeprefix("python -m align"))
    if command[0] == "table":
        assert command[1] == experiment
        assert compose(f"experiment={experiment}", *command[2:])
    elif command[0] == "online":
        assert f"experiment={experiment}" in command
        assert read_online(Command(tuple(command[1:]))).rounds == config.rounds
    elif command[0] != "make":
        assert f"experiment={experiment}" in [word.lstrip("+") for word in command]
        assert compose(*(word for word in command if word != "-m"), multirun="-m" in command)
    prose = " ".join(head)
    assert "evaluations" in prose or "candidates" in prose
    assert re.search(r"\b(seconds?|minutes?|hours?|hour)\b", prose)


@pytest.mark.parametrize("name", [name for name in group_choices("prompts") if name.startswith("shapes")])
def test_the_pinned_prompt_sets_are_what_they_say(name):
    config = compose(f"prompts={name}").prompts
    assert config.sha256 is not None
    prompts = load_prompts(config)
    captions = [parse_caption(prompt) for prompt in prompts.prompts]
    assert len(set(prompts.prompts)) == len(prompts.prompts) >= 16
    split = next((one for one in ("val", "train") if one in name), "test")
    assert {caption_split(caption) for caption in captions} == {split}
    assert {len(caption.phrases) for caption in captions} == {1 if "single" in name else 2}


@pytest.mark.parametrize(
    ("name", "number", "first"),
    [
        ("simple_animals", 45, "cat"),
        ("search_animals", 7, "cat"),
        ("hpdv2_photo_50", 50, "A passenger jet"),
        ("geneval", 553, "a photo of a bench"),
    ],
)
def test_published_prompt_sets_are_pinned(name, number, first):
    config = compose(f"prompts={name}").prompts
    assert config.sha256 is not None
    prompts = load_prompts(config).prompts
    assert len(set(prompts)) == len(prompts) == number
    assert prompts[0].startswith(first)


def test_sampler_takes_the_backbones_guidance_scale():
    assert compose("backbone.guidance_scale=7").sampler.guidance_scale == 7
    assert compose("backbone.guidance_scale=7", "sampler.guidance_scale=2").sampler.guidance_scale == 2


def test_a_sweep_is_every_combination_in_order():
    jobs = compose("method=none,dymo", "seed=0,1", multirun=True)
    assert [(job.method.name, job.seed) for job in jobs] == [
        ("none", 0),
        ("none", 1),
        ("dymo", 0),
        ("dymo", 1),
    ]
    assert len({job.run.folder for job in jobs}) == 4
    jobs = compose("method=glob(das*)", "sampler.steps=range(1,3)", "sampler.eta=1", multirun=True)
    alike = [name for name in group_choices("method") if name.startswith("das")]
    assert len(jobs) == 2 * len(alike) > 2


def test_default_folders():
    assert compose().run.folder == "outputs/shapes-none-shapes_demo-seed0"
    assert compose("seed=3", "prompts.limit=2", "run.batch_size=4").run.folder.endswith("shapes_demo-seed3")
    stronger = compose("method=dymo", "method.guidance.strength=2", "sampler=ddim_50").run.folder
    assert stronger == "outputs/shapes-dymo-shapes_demo-seed0-strength=2,sampler=ddim_50"
    assert compose("method=dymo", "sampler=ddim_50", "method.guidance.strength=2").run.folder == stronger
    strange = compose('negative="../../x y"').run.folder
    assert strange.startswith("outputs/shapes-none-shapes_demo-seed0-negative=")
    assert ".." not in strange.split("/")
    assert compose('negative="../../x_y"').run.folder != strange
    assert compose("experiment=shapes_pair", "method=dymo").run.folder.startswith(
        "outputs/shapes_pair/shapes-dymo"
    )


def test_a_set_of_the_users_is_in_its_folders_name(tmp_path):
    def folder(*more):
        return compose("prompts=file", *more).run.folder

    for name, text in {
        "one.txt": "a\nb\n",
        "two.txt": "a\n",
        "same.jsonl": '{"prompt": "a", "tag": 1}\n"b"',
    }.items():
        (tmp_path / name).write_text(text)
    one, two, same = (f"prompts.path={tmp_path / name}" for name in ("one.txt", "two.txt", "same.jsonl"))
    assert re.fullmatch(r"outputs/shapes-none-file-[0-9a-f]{8}-seed0", folder(one))
    assert folder(one) == folder(same) == folder(one, "prompts.limit=1", "prompts.shuffle_seed=3")
    assert folder(one) != folder(two)
    typed = compose("prompts=text", "prompts.text=[a,b]").run.folder
    assert typed == folder(one).replace("file", "text")
    assert compose("prompts=text", "prompts.text=[a,c]").run.folder != typed
    drawn = compose("prompts=shapes_pair", "prompts.sha256=null", "prompts.set_seed=3").run.folder
    assert drawn != compose("prompts=shapes_pair").run.folder == "outputs/shapes-none-shapes_pair-seed0"
    styles = f"prompts.dataset={tmp_path}", "prompts.files=[one.txt]"
    assert compose("prompts=hpdv2", *styles).run.folder == folder(one).replace("file", "hpdv2")


def test_options_that_a_yaml_leaves_out_can_be_set():
    config = compose("method=none", "method.recurrence.cap=2", "reward=sum", "reward.terms.shapes_pick=2")
    assert config.method.recurrence.cap == 2
    assert config.reward.label == "2*shapes_pick"


def test_own_groups_are_found(tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("# Mine\nname: mine\nparticles: 3\nchoose: best\n")
    for folder in (tmp_path, tmp_path / 'odd "name", {x}'):
        if folder is not tmp_path:
            (folder / "method").mkdir(parents=True)
            (folder / "method" / "mine.yaml").write_text("name: mine\nparticles: 3\nchoose: best\n")
        (job,) = jobs_of(parse(["method=mine", "--config-dir", str(folder)]))
        assert job.config.method.particles == 3


def test_a_folder_of_ones_own_may_hold_the_primary_config(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nsampler: {steps: 7}\n")
    command = ["--config-dir", str(tmp_path), "--config-name", "mine", "method=best_of_n"]
    (job,) = jobs_of(parse(command))
    assert (job.config.sampler.steps, job.config.method.name) == (7, "best_of_n")
