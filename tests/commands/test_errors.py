"""Wrong commands: exit code 2, one line that helps, and nothing in the folder."""

import os
import re

import pytest

from align.__main__ import main
from align.config.places import group_choices

from .helpers import align

WRONG = {
    "group choice": (["method=dimo"], ["method=dimo", "did you mean dymo?"]),
    "group choice far off": (["backbone=zzz"], ["backbone=zzz", "choices: alignprop_sd15"]),
    "group choice in a sweep": (["-m", "method=none,dimo"], ["method=dimo", "dymo"]),
    "group list": (["method=[none]"], ["give the name of a method"]),
    "key": (["method.guidance.strenght=2"], ["method.guidance.strenght", "method.guidance.strength"]),
    "key without its group": (["steps=3"], ["unknown option steps", "sampler.steps"]),
    "key far off": (["xyzzy=1"], ["unknown option xyzzy", "groups: backbone"]),
    "key in a known group": (["method.xyzzy=1"], ["method.xyzzy", "method.particles"]),
    "columns of a set without any": (
        ["prompts.column=x"],
        ["prompts.column is not read by prompts=", "prompts=file"],
    ),
    "added key": (["+method.nme=x"], ["method.nme", "method.name"]),
    "target": (["+method._target_=os.system"], ["unknown option method._target_"]),
    "top-level target": (["++_target_=os.system"], ["unknown option _target_"]),
    "callbacks": (["+hydra.callbacks.x._target_=os.getcwd"], ["hydra.callbacks"]),
    "type": (["sampler.steps=abc"], ["sampler.steps=abc", "a whole number"]),
    "range": (["sampler.steps=0"], ["sampler.steps=0", "from 1 to 1000"]),
    "eta": (["sampler.eta=1.5"], ["sampler.eta=1.5", "from 0 to 1"]),
    "samples": (["samples=0"], ["samples=0"]),
    "seed": (["seed=-1"], ["seed=-1", "from 0 to 9223372036854775807", "no random seed"]),
    "no guidance": (
        ["sampler.guidance_scale=0"],
        ["sampler.guidance_scale=0", "from 1 to 100", "1 is the prompt without guidance"],
    ),
    "guider": (["guider=agp"], ["guider=agp", "did you mean apg"]),
    "guider's momentum": (
        ["guider=apg", "guider.momentum=-0.5"],
        ["guider.momentum=-0.5", "from step to step", "leave it at 0"],
    ),
    "guider's other option": (
        ["guider=tcfg", "guider.norm=3"],
        ["guider.norm=3.0 is not read by guider=tcfg"],
    ),
    "guider without a pair": (
        ["guider=apg", "sampler.guidance_scale=1"],
        ["guider=apg", "at sampler.guidance_scale=1", "a scale above 1"],
    ),
    "guider of a density": (["backbone=toy_gmm", "guider=apg"], ["guider=apg", "backbone=toy_gmm has none"]),
    "guider of a consistency model": (
        ["backbone=lcm", "guider.stop=0.5"],
        ["guider=cfg", "backbone=lcm has none"],
    ),
    "weak density": (["backbone=toy_gmm", "guider=pag"], ["guider=pag weakens a network", "give guider=cfg"]),
    "weak and compiled": (
        ["guider=pag", "backbone.compile=true"],
        ["guider=pag", "give backbone.compile=false"],
    ),
    "interval": (["guider.start=0.5", "guider.stop=0.5"], ["guider.start=0.5", "guider.stop=0.5"]),
    "interval of no step": (["guider.stop=0.03"], ["guider.stop=0.03", "25 steps"]),
    "further pass of no step": (
        ["guider=slg", "sampler.steps=5"],
        ["guider=slg", "none of sampler.steps=5", "a later guider.weak_stop"],
    ),
    "blocks": (["guider=pag", "guider.layers=[1]"], ["guider.layers=[1]", "give some of 0 to 0"]),
    "stack": (
        ["guider=pag", "guider.stack=transformer_blocks"],
        ["guider.stack=transformer_blocks", "mid_block.attentions.0.transformer_blocks"],
    ),
    "negative half": (["sampler.guidance_scale=1", "negative=ugly"], ["negative=ugly", "scale above 1"]),
    "steps of a density": (["backbone=toy_gmm", "sampler.steps=1000"], ["sampler.steps=1000", "is 999"]),
    "attention stride": (["backbone.attention_stride=4"], ["backbone.attention_stride=4", "give 1, 2"]),
    "two ladders": (
        ["method=das", "sampler.eta=1", "method.tempering.gamma=0.1"],
        ["method.tempering.gamma=0.1", "method.tempering.full_at=0.7069195", "null for the other"],
    ),
    "no ladder": (
        ["method=das", "sampler.eta=1", "method.tempering.full_at=null"],
        ["method.tempering.full_at=null", "give one of them"],
    ),
    "ladder before its start": (
        ["method=das", "sampler.eta=1", "method.tempering.start=0.8"],
        ["method.tempering.full_at=0.70692", "method.tempering.start=0.8"],
    ),
    "particles": (["method.particles=0"], ["method.particles=0"]),
    "batch size": (["run.batch_size=0"], ["run.batch_size=0"]),
    "height": (["backbone.height=60"], ["backbone.height=60", "multiple of 8"]),
    "no checkpoint": (
        ["backbone=alignprop_sd15"],
        ["no published checkpoint", "backbone.lora=FILE.safetensors"],
    ),
    "pickle": (
        ["backbone.lora=lora.bin"],
        ["backbone.lora=lora.bin", "weights_only=True", '"lora.safetensors"'],
    ),
    "pickled checkpoint": (
        ["backbone=sdxl", "backbone.weights=model.ckpt"],
        ["backbone.weights=model.ckpt", "StableDiffusionXLPipeline", 'P.from_single_file("model.ckpt")'],
    ),
    "one file": (
        ["backbone=sd15", "backbone.weights=o/n:m.safetensors"],
        ["backbone.weights=o/n:m.safetensors", "backbone.single_file", "from_single_file"],
    ),
    "pickled module": (["backbone.unet=unet.pt"], ["backbone.unet=unet.pt", "save_file"]),
    "no file": (["backbone.single_file=folder"], ["backbone.single_file=folder", "FILE.safetensors"]),
    "a value's file": (
        [
            "method=svdd",
            "sampler.eta=1",
            "method.value.estimate=network",
            "method.value.weights=v.safetensors",
        ],
        ["method.value.weights=v.safetensors", "config.json"],
    ),
    "density": (["backbone.density=gmm"], ["backbone.density=gmm", "backbone.kind=analytic"]),
    "no density": (["backbone=toy_gmm", "backbone.density=null"], ["backbone.density=null", "such as gmm"]),
    "density's name": (
        ["backbone=toy_gmm", "backbone.density=gmm3"],
        ["backbone.density=gmm3", "swiss_roll"],
    ),
    "no correction": (["backbone=toy_gmm", "method=mpgd"], ["toy_gmm", "give method.clean.rule=velocity"]),
    "no attention": (
        ["backbone=toy_gmm", "method=dps", "method.objective.semantic=1"],
        ["attention", "give method.objective.semantic=0"],
    ),
    "colours are coordinates": (
        ["backbone=toy_gmm", "method=dps", "method.objective.copies=2"],
        ["give method.objective.copies=0"],
    ),
    "float64": (["backbone=toy_gmm", "run.device=mps"], ["float64", "run.device=cpu"]),
    "consistency sampler": (["sampler=lcm"], ["sampler=lcm needs", "backbone=lcm", "sampler=ddim"]),
    "flow": (["backbone=toy_flow_gmm", "sampler=ddim"], ["sampler=ddim", "give sampler=flow"]),
    "no flow": (["sampler=flow"], ["backbone=shapes", "give backbone=toy_flow_gmm"]),
    "no flow's noise": (["sampler.kernel=cps"], ["sampler.kernel=cps", "leave it at eta"]),
    "no grid": (
        ["backbone=toy_flow_gmm", "sampler.grid=linear"],
        ["sampler.grid=linear", "sampler.kernel=vp"],
    ),
    "flow without noise": (
        ["backbone=toy_flow_gmm", "method=svdd", "sampler.eta=0"],
        ["sampler.eta=0", "sampler=flow_ancestral"],
    ),
    "no correction to temper by": (
        ["backbone=toy_flow_gmm", "method=das", "method.tempering.rule=freedom"],
        ["method.tempering.rule=freedom", "give method.tempering.rule=schedule"],
    ),
    "small budget": (
        ["method=rbf", "sampler=ddim_ancestral", "method.rollover.budget=20"],
        ["method.rollover.budget=20", "at least 35"],
    ),
    "guided budget": (
        [
            "method=rbf",
            "sampler=ddim_ancestral",
            "method.guidance.rule=value",
            "method.objective.preference=1",
        ],
        ["method.rollover.budget=100", "give method.guidance.rule=none"],
    ),
    "consistency model": (["backbone=lcm", "sampler=ddim"], ["sampler=ddim", "give sampler=lcm"]),
    "consistency steps": (["backbone=lcm", "sampler.steps=51"], ["sampler.steps=51", "1 to 50"]),
    "no variance": (["method=gradient", "sampler.eta=0"], ["method.guidance.rule=variance", "sampler.eta=1"]),
    "consistency eta": (["backbone=lcm", "sampler.eta=0.5"], ["sampler.eta=0.5", "leave it at 1"]),
    "consistency rescale": (["backbone=lcm", "sampler.guidance_rescale=0.7"], ["guidance_rescale", "at 0"]),
    "no negative half": (["backbone=lcm", "negative=ugly"], ["negative=ugly", "no negative half"]),
    "no pair": (
        ["backbone=lcm", "method=dymo"],
        ["method.guidance.rule=correction", "constant or value", "method=dps"],
    ),
    "no pair, clean": (
        ["backbone=lcm", "method=mpgd"],
        ["method.clean.rule=correction", "constant or value"],
    ),
    "list length": (["method.recurrence.rate=[1,2]"], ["method.recurrence.rate", "list of 3"]),
    "not finite": (["sampler.guidance_scale=nan"], ["sampler.guidance_scale=nan"]),
    "device": (["run.device=gpu"], ["run.device=gpu", "cuda"]),
    "phases": (["method.objective.phases.both_until=0.9"], ["semantic_until=0.8", "both_until=0.9"]),
    "nothing to follow": (["method.guidance.rule=correction"], ["method.objective.preference"]),
    "recurrence without gradient": (["method.recurrence.rule=gradient_norm"], ["nothing guides"]),
    "rounds without gradient": (["method.recurrence.rule=fixed"], ["method.recurrence.rule=none"]),
    "black box": (["method=dymo", "reward=jpeg_compressibility"], ["jpeg_compressibility", "best_of_n"]),
    "no reward": (["method=best_of_n", "reward=sum"], ["method=best_of_n needs a reward", "shapes_pick"]),
    "reward name": (["reward.terms.shapes_pic=1"], ["shapes_pic", "did you mean shapes_pick?"]),
    "metric name": (["metrics.rewards=[shapes_hpsv2]"], ["metrics.rewards[0]", "shapes_hps"]),
    "metric twice": (["metrics.rewards=[shapes_hps,shapes_hps]"], ["once"]),
    "sweep without -m": (["seed=0,1"], ["add -m"]),
    "grammar": (["prompts.text=[a,,{]"], ["cannot read", "quotes"]),
    "no value": (["method"], ["'method' is neither", "method=VALUE"]),
    "command": (["docter"], ["did you mean doctor?"]),
    "flag": (["--multrun"], ["--multrun", "--multirun"]),
    "flag value": (["--cfg", "jobb"], ["jobb"]),
    "config folder": (["--config-dir", "nowhere"], ["nowhere"]),
    "config name": (["--config-name", "nothing"], ["nothing"]),
    "interpolation": (["negative=${nothing}"], ["nothing"]),
    "no prompts": (["prompts=text"], ["prompts.text="]),
    "no file named": (["prompts=file"], ["prompts.path=FILE"]),
    "no such file": (["prompts=file", "prompts.path=none.txt"], ["none.txt", "no such file"]),
    "offset": (["prompts.offset=99"], ["prompts.offset=99"]),
    "pinned set": (["prompts=shapes_pair", "prompts.number=10"], ["pinned", "prompts.limit"]),
    "launcher": (["hydra/launcher=joblib_x"], ["joblib_x"]),
    "launcher of one run": (["hydra/launcher=joblib"], ["add -m"]),
    "package": (["method@other=dymo"], ["method@other"]),
    "doctor": (["doctor", "backbone=zzz"], ["backbone=zzz"]),
    "gallery": (["gallery", "nowhere"], ["--out"]),
    "gallery folder": (["gallery", "nowhere", "--out", "x/y.html"], ["nowhere"]),
    "gallery rows": (["gallery", "x", "--out", "y.html", "--limit", "0"], ["--limit", "from 1"]),
    "report": (["report"], ["report: ", "FOLDER", "see python -m align report --help"]),
    "report of no path": (["report", "x" * 300], ["is not a folder"]),
    "report flag": (["report", "x", "--bogus"], ["report: ", "--bogus"]),
    "report rows": (["report", "x", "--limit", "9" * 5000], ["--limit", "from 1"]),
    "report gallery": (["report", "x", "--gallery"], ["--gallery needs --out"]),
    "jobs": (["table", "dymo_table1", "--jobs", "x"], ["--jobs", "from 1"]),
    "one folder": (
        ["-m", "method=none,best_of_n", "reward=shapes_pick", "run.folder=x"],
        ["go into one folder, x", "differ in method", "run.extend=true"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_line_and_nothing_written(case, tmp_path, monkeypatch, capsys):
    arguments, words = WRONG[case]
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1, err
    assert len(err) < 600  # the longest names all backbones
    assert "HYDRA_FULL_ERROR" not in err
    assert err.startswith("align: ")
    for word in words:
        assert word in err
    assert out == ""
    assert not list(tmp_path.iterdir())


LAUGHS = "a: &a [x, y]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + last] * 9)}]\n" for last, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: mine\nname: again\n", ["mine.yaml, line 2", "duplicate"]),
        ("name: [\n", ["mine.yaml, line 2"]),
        ("name: mine\nparticels: 3\n", ["method.particels", "method.particles"]),
        ("name: mine\n_target_: os.system\n", ["method._target_"]),
        ("- a\n- b\n", ["method"]),
        ("name: ???\n", ["method.name"]),
        ("particles: 3\n", ["method.name"]),
        ("defaults:\n  - nothing\nname: mine\n", ["nothing"]),
        ("defaults:\n  - /reward: shapes_pic\nname: mine\n", ["shapes_pic", "did you mean shapes_pick"]),
        ("name: ${oops\n", ["oops"]),
        ("name: &a [*a]\n", ["mine.yaml: its aliases stand for more than 100,000 values"]),
        (LAUGHS, ["mine.yaml: its aliases"]),
        ("name: " + "[" * 2000 + "\n", ["nested too deep"]),
        ("# a\n" * 300_000, ["mine.yaml", "larger than 1,024 kB"]),
        ("42\n", ["mine.yaml", "mend the file"]),
        ("null: 3\n", ["mine.yaml", "mend the file"]),
    ],
)
def test_bad_yaml_of_the_user(text, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["method=mine", "--config-dir", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["method"]


def test_what_is_no_file_is_not_waited_for(tmp_path, monkeypatch, capsys):
    for name in ("method", "experiment", "run"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "method" / "mine.yaml")
    os.mkfifo(tmp_path / "experiment" / "mine.yaml")
    for name in ("config.yaml", "prompts.csv", "run/results.csv", "run/run.json"):
        os.mkfifo(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for arguments, words in (
        (["method=mine", "--config-dir=."], "there is no such method"),
        (["table", "mine", "--config-dir=."], "there is no such table"),
        (["prompts=file", "prompts.path=prompts.csv"], "it is a pipe, not a file"),
        (["prompts=file", "prompts.path=/dev/zero"], "it is a device, not a file"),
        (["method=dymo", "semantics=file", "semantics.path=config.yaml"], "it is a pipe, not a file"),
        (["run.plugins=[config.yaml]"], "there is no file"),
        (["report", "run"], "no results.csv"),
        (["metrics=none", "prompts.limit=1", "run.folder=run"], "is no file: remove it"),
    ):
        assert main(arguments) == 2, arguments
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert words in err, err


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("bad.json", '{"prompt": "x"}', "holds no list"),
        ("bad.json", '["x"', "is not JSON"),
        ("bad.json", '["x", 3]', "entry 2"),
        ("bad.jsonl", '{"prompt": "x"}\n{"text": "y"}\n', "line 2"),
        ("bad.jsonl", '{"prompt": "x"}\n{oops\n', "line 2"),
        ("bad.txt", b"\xff\xfe\x00", "is UTF-16"),
        ("empty.txt", "\n\n", "is empty"),
    ],
)
def test_bad_prompt_files(name, text, words, tmp_path, monkeypatch, capsys):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.chdir(tmp_path)
    assert main(["prompts=file", f"prompts.path={name}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert words in err
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_missing_weights_exit_3_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["backbone.weights=elsewhere", "method=dymo"]) == 3
    err = capsys.readouterr().err
    assert "unet/diffusion_pytorch_model.safetensors" in err
    assert "backbone.weights=FOLDER" in err
    assert not list(tmp_path.iterdir())


def test_the_real_process_says_one_line_too(tmp_path):
    done = align("method=dimo", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_lists_every_choice(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for group in ("backbone", "method", "reward", "prompts"):
        assert all(name in text for name in group_choices(group))
    assert max(map(len, text.splitlines())) <= 120


LIGHT = """
import sys
from align.__main__ import main
code = main(sys.argv[1:])
heavy = {"torch", "torchvision", "diffusers", "transformers", "open_clip", "pandas", "matplotlib", "scipy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--cfg", "job", "method=dymo"], 0),
        (["--cfg", "all"], 0),
        (["method=dimo"], 2),
        (["sampler.stepps=1"], 2),
        (["doctr"], 2),
        (["backbone.weights=elsewhere"], 3),
    ],
)
def test_nothing_heavy_is_imported(arguments, code, tmp_path):
    done = align(*arguments, folder=tmp_path, code=LIGHT)
    assert done.returncode == code, done.stderr
    assert not list(tmp_path.iterdir())


def test_cfg_job_can_be_given_back(tmp_path, capsys):
    import yaml

    from align.config.convert import build
    from align.config.schema import Config

    assert main(["--cfg", "job", "-m", "method=none,dymo"]) == 0
    first, second = yaml.safe_load_all(capsys.readouterr().out)
    assert build(Config, first).method.name == "none"
    assert build(Config, second).method.name == "dymo"


def test_doctor_says_what_is_missing(capsys):
    code = main(["doctor", "backbone.weights=elsewhere"])
    out = capsys.readouterr().out
    assert code == 3
    for word in ("torch", "cpu:", "MISSING", "backbone.weights=FOLDER", "reward shapes_spm"):
        assert word in out


def test_doctor_shows_the_parts_of_a_method_and_what_it_lacks(capsys):
    """DAS draws no noise with the default sampler; what it is made of can be looked at all the same."""
    assert main(["doctor", "method=das"]) == 2
    out, err = capsys.readouterr()
    assert re.search(
        "^  guidance +method.guidance.rule=variance +align/sampling/guidance.py Guidance", out, re.MULTILINE
    )
    assert "packages" not in out
    assert err.count("\n") == 1
    assert "sampler.eta" in err
    assert main(["doctor", "--fetch", "method=das"]) == 2
    assert capsys.readouterr() == ("", err)
