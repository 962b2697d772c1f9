"""Real configurations from the hub's cache to measured pictures, through the command, with tiny weights."""

import json
import math
import subprocess
import sys
from functools import cache

import pandas
import pytest
from hub_box import FIXED_VAE, SDXL, box_environment, repository, write_lora
from rewards.box import AESTHETIC, COMMIT, HEAD, HPS, SPM

from align.__main__ import main
from align.config.places import group_choices
from align.store.csvfile import read_csv

pytestmark = pytest.mark.usefixtures("at_home")
BACKBONES = [
    name
    for name in group_choices("backbone")
    if name.endswith(("sd15", "sdxl", "lcm")) and not name.startswith(("hyper", "dmd2"))
]
"""Those with a UNet, of many steps, and a consistency model."""
PAIRED = [name for name in BACKBONES if name != "lcm"]
"""Those with a pair of guidance halves, on which every method is defined."""
PAPER = ["pickscore", "hpsv2", "imagereward", "aesthetic"]
PROMPT = "a red cat and a blue dog"
TINY = [
    "prompts=text",
    f"prompts.text=[{PROMPT}]",
    "backbone.height=64",
    "backbone.width=64",
    "run.gallery=false",
    "run.device=cpu",
]


class Made:
    """What a run left: its only row and picture, and its record."""

    def __init__(self, folder):
        self.record = json.loads((folder / "run.json").read_text())
        table = read_csv(folder / "results.csv")
        assert len(table) == 1
        self.row = table.iloc[0]
        assert self.row["status"] == "ok"
        self.picture = (folder / self.row["image"]).read_bytes()


@pytest.fixture(scope="module")
def make(at_home, tmp_path_factory):
    """Runs a command in a folder of its own, once; what it made."""

    @cache
    def run(*arguments):
        folder = tmp_path_factory.mktemp("run") / "run"
        assert main([*TINY, f"run.folder={folder}", *arguments]) == 0
        return Made(folder)

    return run


@pytest.fixture(scope="module")
def of(make, tmp_path_factory):
    """Runs a method on a backbone in three steps; what it made."""
    lora = write_lora(tmp_path_factory.mktemp("own") / "lora.safetensors")

    def run(backbone, method, *more):
        own = [f"backbone.lora={lora}"] if backbone == "alignprop_sd15" else []
        cap = ["method.recurrence.cap=2"] if method.startswith("dymo") else []
        steps = "sampler.steps=3"
        return make(f"backbone={backbone}", f"method={method}", steps, *own, *cap, *more)

    return run


# Of six steps some fall into each of DyMO's phases.
SIX = ("backbone=sdxl", "metrics=paper", "sampler.steps=6")


@pytest.mark.slow
def test_dymo_on_sdxl_makes_and_measures_a_guided_picture(make):
    guided = make(*SIX, "method=dymo", "method.recurrence.cap=2")
    assert all(math.isfinite(guided.row[name]) for name in PAPER)
    assert guided.row["reward"] == guided.row["optimised"] == "spm_sdxl"
    assert guided.row["network_backward"] >= 5  # all steps but the last
    assert guided.row["reward_backward"] > 0
    assert guided.row["nonfinite_gradients"] == 0
    plain = make(*SIX, "method=none")
    assert plain.row["network_backward"] == 0
    assert guided.picture != plain.picture


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dymo", "freedom", "ugd"])
def test_strength_zero_is_the_plain_picture(method, make):
    assert make(*SIX, f"method={method}", "method.guidance.strength=0").picture == (
        make(*SIX, "method=none").picture
    )


@pytest.mark.slow
def test_the_record_tells_what_made_and_measured_it(make, at_home):
    made = make(*SIX, "method=dymo", "method.recurrence.cap=2").record
    assert made["identity"]["backbone"]["dtype"] == "bfloat16"
    found, sources = made["record"]["fingerprints"], made["record"]["sources"]
    for what, repo in (("backbone sdxl", SDXL), ("backbone sdxl vae", FIXED_VAE)):
        assert len(found[what]) == 64
        assert sources[what] == f"{repo}@{repository(at_home / 'hub', repo).name}"
    assert found["reward hpsv2: version"] == "2.0"
    assert found["reward spm_sdxl: preprocess"] == "spo"
    for name in ("spm_sdxl", *PAPER):
        assert len(found[f"reward {name}"]) == 64
        assert found[f"reward {name}: dtype"] == "float32"
        assert found[f"reward {name}: preprocess"]
        assert found[f"reward {name}: version"]
    assert found[f"reward hpsv2: revision of {HPS}"] == COMMIT
    assert found[f"reward spm_sdxl: revision of {SPM}"] == COMMIT
    assert found[f"reward aesthetic: revision of {AESTHETIC}"] == "local"
    assert len(found[f"reward aesthetic: {HEAD.rpartition('/')[2]}"]) == 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        *(("none", name) for name in PAIRED),
        *(("dymo", name) for name in ("sd15", "sdxl", "alignprop_sd15")),
        ("freedom", "spo_sdxl"),
    ],
)
def test_every_backbone_and_guidance_on_each_layout(backbone, method, of):
    made = of(backbone, method)
    assert all(math.isfinite(made.row[name]) for name in PAPER)
    guide = "spm_sdxl" if "sdxl" in backbone else "spm_sd15"
    if method == "none":
        assert made.row["network_backward"] == 0
    else:
        assert made.row["network_backward"] >= 2
        assert made.row["optimised"] == guide
        assert made.picture != of(backbone, "none").picture


@pytest.mark.slow
@pytest.mark.parametrize("method", ["none", "best_of_n", "dps", "dymo_paper"])
def test_a_consistency_model_with_the_methods_that_need_no_pair(method, of):
    made = of("lcm", method)
    assert all(math.isfinite(made.row[name]) for name in PAPER)
    evaluations = {"best_of_n": 4 * 3}.get(method, 3)  # of three steps; time travel may add some
    assert made.row["network_forward"] >= evaluations
    if method != "dymo_paper":
        assert made.row["network_forward"] == evaluations
    plain = of("lcm", "none")
    if method == "best_of_n":
        assert made.row["pickscore"] >= plain.row["pickscore"]
    elif method != "none":
        assert made.row["network_backward"] >= 2
        assert made.picture != plain.picture


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["sd15", "sdxl"])
def test_search_through_the_published_small_decoder(backbone, of):
    search = [
        "sampler=ddim_ancestral",
        "method.search.candidates=2",
        "metrics=none",
        "reward=jpeg_compressibility",
    ]
    small = of(backbone, "svdd", *search, "method.value.estimate=small_decoder")
    # The first prediction, and two candidates in each of two steps; the end is decoded in full.
    assert (small.row["network_forward"], small.row["decoder_forward"]) == (5, 5)
    assert any("madebyollin/taesd" in source for source in small.record["record"]["sources"].values())
    assert small.record["identity"]["method"]["value"]["weights"]


@pytest.mark.slow
def test_no_two_backbones_make_the_same_picture(of):
    assert len({of(backbone, "none").picture for backbone in BACKBONES}) == len(BACKBONES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["best_of_n", "dymo_released", "dymo_smc", "fk", "gradient", "mpgd", "tds", "ugd"]
)
def test_other_methods_on_sd15(method, of, tmp_path):
    """One of each kind of call; the experiments below are those of the searches and of das."""
    graph = {"prompt": PROMPT, "knowledge": [{"cat": ["red"]}, {"dog": ["blue"]}]}
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph))
    more = {
        "dymo_released": ["semantics=file", f"semantics.path={path}", "semantics.matching=released"],
        "best_of_n": ["reward=pickscore"],
    }.get(method, [])
    made = of("sd15", method, *more)
    assert all(math.isfinite(made.row[name]) for name in PAPER)
    assert made.row["reward"] == ("pickscore" if method == "best_of_n" else "spm_sd15")
    plain = of("sd15", "none")
    if method == "best_of_n":
        assert made.row["pickscore"] >= plain.row["pickscore"]
    else:
        assert made.picture != plain.picture


SEARCHES = {
    "dsearch_aesthetic": ("method.particles=6", "method.returned=2", "method.search.widen=2"),
    "dsearch_r_compress": ("method.particles=4", "method.search.replace=0.25", "method.search.widen=2"),
    "svdd_compress": ("method.search.candidates=4",),
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", SEARCHES)
def test_the_commands_of_the_search_release(experiment, at_home, tmp_path):
    """Smaller: pictures, steps, particles and candidates."""
    smaller = ["backbone.height=64", "backbone.width=64", "sampler.steps=3", "run.device=cpu"]
    number = 4 if experiment == "dsearch_r_compress" else 2
    folder = tmp_path / "run"
    own = [*SEARCHES[experiment], f"samples={number}", "prompts.limit=2", f"run.folder={folder}"]
    assert main([f"experiment={experiment}", *smaller, *own]) == 0
    table = read_csv(folder / "results.csv")
    assert len(table) == 2 * number
    assert set(table["status"]) == {"ok"}
    assert table["prompt"].nunique() == 2
    optimised = table["optimised"].iloc[0]
    assert table[optimised].map(math.isfinite).all()
    assert all(table[name].map(math.isfinite).all() for name in PAPER)
    assert (table["reward_forward"] > 0).all()
    assert (table["network_backward"] == 0).all()
    pictures = {(folder / name).read_bytes() for name in table["image"]}
    assert (
        len(pictures) >= len(table) // 2
    )  # copies of one particle may end alike, but draw their own last noise


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment", ["das_sd15_aesthetic", "das_sd15_clip", "das_sdxl_pick", "das_lcm_multi"]
)
def test_das_experiments_of_each_backbone_and_each_reward(experiment, at_home, tmp_path):
    folder = tmp_path / "run"
    small = [option for option in TINY if not option.startswith("prompts")]
    command = [f"experiment={experiment}", "sampler.steps=3", "prompts.limit=1", f"run.folder={folder}"]
    assert main([*small, *command]) == 0
    made = Made(folder)
    assert all(math.isfinite(made.row[name]) for name in PAPER)
    guided = 2 if "lcm" in experiment else 3  # a consistency model's last step is not
    assert made.row["network_forward"] == 4 * 3
    assert made.row["network_backward"] == made.row["reward_backward"] == 4 * guided
    assert made.row["decoder_forward"] == made.row["reward_forward"] == 4 * (3 + 1)
    assert made.row["nonfinite_gradients"] == 0
    assert len(made.row["info_ess"].split()) == 3
    assert math.isfinite(made.row["info_log_evidence"])
    assert made.row["info_particle"] in range(4)


OTHERS = [
    name
    for name in group_choices("experiment")
    if not name.startswith(("das_", "dsearch_", "svdd_", "online_"))
]
"""What one run makes; an online experiment is several."""


@pytest.mark.slow
@pytest.mark.parametrize("experiment", OTHERS)
def test_every_other_experiment_makes_a_picture(experiment, at_home, tmp_path):
    published = experiment.startswith(("dymo_table", "spo_")) and "shapes" not in experiment
    size = ["backbone.height=64", "backbone.width=64"] if published else []
    small = [*size, "prompts.limit=1", "samples=1", "sampler.steps=2", "run.batch_size=2", "run.device=cpu"]
    folder = tmp_path / "run"
    assert main([f"experiment={experiment}", *small, "run.gallery=false", f"run.folder={folder}"]) == 0
    made = Made(folder)
    assert made.row["status"] == "ok"
    if published:
        assert all(math.isfinite(made.row[name]) for name in PAPER)


@pytest.mark.slow
def test_released_das_on_a_consistency_model(of):
    options = ("reward=aesthetic", "method.tempering.gamma=1.0", "method.tempering.full_at=null")
    released, half = (of("lcm", "das_released", *options, f"sampler.eta={eta}") for eta in (1.0, 0.5))
    assert len({released.picture, half.picture, of("lcm", "das", *options).picture}) == 3


@pytest.mark.slow
def test_one_command_in_a_process_of_its_own(at_home, tmp_path, make):
    options = ["method=dymo", "backbone=sdxl", "sampler.steps=6", "method.recurrence.cap=2"]
    command = [sys.executable, "-m", "align", *TINY, *options, f"run.folder={tmp_path / 'run'}"]
    environment = box_environment(at_home)
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    made = Made(tmp_path / "run")
    assert all(math.isfinite(made.row[name]) for name in PAPER)
    assert made.picture == make(*SIX, "method=dymo", "method.recurrence.cap=2").picture
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_doctor_finds_everything(capsys):
    assert main(["doctor", "backbone=sdxl"]) == 0
    out = capsys.readouterr().out
    assert "backbone sdxl can run" in out
    assert "MISSING" not in out
    assert "to mend" not in out
    for name in (*PAPER, "hpsv21", "clipscore", "spm_sd15", "spm_sdxl"):
        assert f"\n  reward {name} " in out
    assert "HPS_v2_compressed.pt " in out  # a file is told by its name, not by its snapshot's
    assert COMMIT not in out


def test_doctor_has_nothing_to_fetch_for_a_guided_run(capsys):
    assert main(["doctor", "--fetch", "backbone=sdxl", "method=dymo"]) == 0
    assert "all files of this configuration are there" in capsys.readouterr().out


@pytest.mark.slow
def test_a_published_table_runs_with_what_the_user_brings(at_home, tmp_path):
    lora = write_lora(tmp_path / "lora.safetensors")
    small = [*TINY, "sampler.steps=2", "method.recurrence.cap=1", f"run.root={tmp_path}"]
    some = ["--only", "plain,alignprop,kto,dymo", "--for", "alignprop", f"backbone.lora={lora}"]
    assert main(["table", "dymo_table1", *small, *some]) == 0
    table = pandas.read_csv(tmp_path / "dymo_table1" / "table.csv").set_index(["row", "metric"])
    for row in ("plain", "alignprop", "kto", "dymo"):
        for metric in PAPER:
            assert math.isfinite(table.loc[(row, metric), "ours"])
            assert table.loc[(row, metric), "column"] == metric
    assert table.loc[("spo", "hpsv2"), "why_not"] == "not chosen: --only names other rows"
    assert math.isfinite(table.loc[("alignprop", "pickscore"), "difference"])
