"""What is learned of a black box: closed forms, what the bonus does, and that a file is the surrogate."""

import pytest
import torch
import torch.nn.functional as F

from align.errors import WrongWeights
from align.sampling.noise import NoiseStream
from align.surrogates.draws import Draws
from align.surrogates.frame import Asked, framed
from align.surrogates.networks import Fit, bonus, hidden, root_of, values
from align.surrogates.surrogate import fit_networks, fit_ridge, read_surrogate, told_by

PROMPTS = ("a", "b", "c", "d")
RIDGE = {"centre": "prompt", "scale": "none", "a": 1.0, "limit": 10.0, "ridge": 1e-6}


def draws(key="", sample=0):
    return Draws(NoiseStream(0, key, sample))


def asked(rows=40, width=6, noise=0.0, levels=(0.0, 5.0, -3.0, 2.0)):
    """Values that are linear in features, and a level of its own for each prompt."""
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(rows, width, generator=generator), dim=-1)
    slope = torch.arange(1.0, width + 1)
    level = torch.tensor([levels[row % 4] for row in range(rows)])
    said = features @ slope + level + noise * torch.randn(rows, generator=generator)
    return Asked(features, said, tuple(PROMPTS[row % 4] for row in range(rows))), slope


def test_ridge_finds_what_tells_pictures_of_a_prompt_apart():
    data, slope = asked()
    found = fit_ridge(data, "shapes_pick", **RIDGE)
    assert torch.allclose(found.layers[0][0, 0], slope, atol=1e-3)
    there = data.features[[0, 4, 8]]
    gains = found.plain()(there, ["a"] * 3)
    assert torch.allclose(gains - gains[0], (there - there[0]) @ slope, atol=1e-3)


def test_centred_by_all_prompts_their_levels_are_taken_for_gains():
    data, slope = asked()
    found = fit_ridge(data, "shapes_pick", **(RIDGE | {"centre": "all"}))
    assert (found.layers[0][0, 0] - slope).abs().max() > 0.3


def test_the_penalty_is_the_one_that_leaves_each_row_out_best():
    data, _ = asked(rows=24, noise=2.0, levels=(0.0,) * 4)
    options = RIDGE | {"centre": "none"}
    found = fit_ridge(data, "shapes_pick", **(options | {"ridge": None}))

    def left_out(ridge):
        """By fitting again without each row."""
        errors = []
        for row in range(24):
            others = torch.tensor([other for other in range(24) if other != row])
            one = fit_ridge(data.take(others), "shapes_pick", **(options | {"ridge": ridge}))
            errors.append(float(one.plain()(data.features[row : row + 1], ["a"])[0] - data.values[row]) ** 2)
        return sum(errors) / 24

    least = min(left_out(10.0**power) for power in (-3, -2, -1, 0, 1))
    assert found.size**2 == pytest.approx(least, rel=0.05)


def test_prompts_asked_about_once_say_nothing_within_a_prompt():
    data, _ = asked(rows=8)
    more = data.and_then(Asked(torch.ones(1, 6), torch.tensor([100.0]), ("once",)))
    frame, rows, said = framed(more, "prompt", "none")
    assert frame.prompts == PROMPTS
    assert torch.equal(rows, framed(data, "prompt", "none")[1])
    assert torch.equal(said, framed(data, "prompt", "none")[2])
    alone = data.take(torch.arange(4))
    assert framed(alone, "prompt", "none")[0].prompts == ()
    assert len(framed(alone, "prompt", "none")[1]) == 4


def test_values_are_counted_in_deviations_within_a_prompt():
    data, _ = asked()
    _, _, plain = framed(data, "prompt", "none")
    frame, _, scaled = framed(Asked(data.features, 7 * data.values, data.prompts), "prompt", "deviation")
    assert float(scaled.square().sum() / 36) == pytest.approx(1)
    assert frame.scale == pytest.approx(7 * float((plain.square().sum() / 36).sqrt()), rel=1e-5)


def test_what_has_no_number_is_left_out():
    data = Asked(torch.eye(3), torch.tensor([1.0, float("nan"), float("inf")]), ("a", "b", "c"))
    assert data.finite().prompts == ("a",)


@pytest.mark.parametrize(("rule", "shrinks"), [("gram", True), ("covariance", False)])
def test_the_bonus_shrinks_as_more_is_asked(rule, shrinks):
    data, _ = asked(rows=400)
    few, many = (
        bonus(data.features[:3], root_of(data.features[:rows], 1e-3, rule), 1.0, 1e9) for rows in (40, 400)
    )
    ratio = float((many / few).mean())
    assert ratio < 0.4 if shrinks else 0.7 < ratio < 1.4


def test_the_bonus_is_the_closed_form_and_has_a_limit_and_a_gradient_everywhere():
    data, _ = asked()
    known = data.features.T @ data.features + 0.5 * torch.eye(6)
    exact = (data.features @ torch.linalg.inv(known) * data.features).sum(1).sqrt()
    assert torch.allclose(
        bonus(data.features, root_of(data.features, 0.5, "gram"), 2.0, 1e9), 2 * exact, rtol=1e-4
    )
    assert bonus(data.features, root_of(data.features, 0.5, "gram"), 2.0, 0.1).max() <= 0.1
    nothing = torch.zeros(2, 6, requires_grad=True)
    bonus(nothing, root_of(data.features, 0.5, "gram"), 1.0, 1.0).sum().backward()
    assert nothing.grad.isfinite().all()


def fitted(heads=1, rule=None, epochs=30, **more):
    data, _ = asked()
    keyed = draws("surrogate")
    start = keyed.start([6, 8, 4], heads)
    fit = Fit(epochs, 16, 1e-2, **more)
    return fit_networks(
        data, "shapes_pick", fit, start, keyed, centre="prompt", scale="deviation", rule=rule, a=1.0, limit=10.0, ridge=0.1
    )  # fmt: skip


def test_the_kept_weights_are_those_of_the_best_epoch_and_never_live():
    data, _ = asked(noise=1.0)
    _, rows, said = framed(data, "all", "deviation")
    long, start = draws(), draws().start([6, 8, 4], 1)
    found = Fit(200, 16, 5e-2)(start, rows, said, long)
    assert found.epoch == found.errors.index(min(found.errors)) < 199
    again = Fit(found.epoch + 1, 16, 5e-2)(start, rows, said, draws())
    assert all(torch.equal(one, other) for one, other in zip(found.layers, again.layers, strict=True))


def test_what_is_held_out_is_random_and_apart():
    rows, held_out = draws().split(100, 0.1)
    assert sorted([*rows.tolist(), *held_out.tolist()]) == list(range(100))
    assert held_out.tolist() not in (list(range(90, 100)), draws("another").split(100, 0.1)[1].tolist())
    assert [len(part) for part in draws().split(2, 0.9)] == [1, 1]


def test_several_networks_start_and_learn_apart():
    found = fitted(heads=3)
    assert len({float(one) for one in found.layers[-1].flatten()}) == 3
    data, _ = asked()
    most, mean = found(data.features, data.prompts), found.plain()(data.features, data.prompts)
    heads = values(found.layers, found.frame(data.features, data.prompts))
    assert torch.equal(most, heads.max(0).values)
    assert torch.allclose(mean, heads.mean(0))


def test_without_optimism_ucb_is_its_network_alone():
    found, data = fitted(rule="gram"), asked()[0]
    there = found.frame(data.features, data.prompts)
    h = hidden(found.layers, there)[0]
    difference = found(data.features, data.prompts) - found.plain()(data.features, data.prompts)
    assert torch.allclose(difference, bonus(h, found.root, 1.0, 10.0), atol=1e-5)


@pytest.mark.parametrize("make", [lambda: fitted(2), lambda: fitted(rule="gram"), lambda: fit_ridge(asked()[0], "shapes_pick", **RIDGE)])  # fmt: skip
def test_a_file_is_the_surrogate_and_equal_ones_are_equal_files(tmp_path, make):
    found, data = make(), asked()[0]
    for name in ("one", "two"):
        make().save(tmp_path / name, of="data")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    read = read_surrogate(tmp_path / "one")
    prompts = [*data.prompts[:-1], "never asked about"]
    assert torch.equal(read(data.features, prompts), found(data.features, prompts))
    assert torch.equal(read.plain()(data.features, prompts), found.plain()(data.features, prompts))
    assert told_by(tmp_path / "one")["of"] == "data"


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(WrongWeights, match="no surrogate"):
        read_surrogate(tmp_path / "x.safetensors")
