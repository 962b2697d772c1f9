from dataclasses import replace

import pytest
import torch
from fakes import SCHEDULE

from align.commands.parser import parse
from align.config.compose import jobs_of
from align.config.errors import ConfigError
from align.processes.base import Gaussian, clean_and_noise
from align.processes.ddim import ddim
from align.processes.lcm import lcm
from align.sampling.guidance import CleanGuidance, Guidance, NoiseGuidance
from align.sampling.noise import Draws, NoiseStream
from align.sampling.objective import Terms
from align.sampling.state import Estimate

PROCESS = ddim(SCHEDULE, 10, 1.0)
STEP = PROCESS.steps[4]
TERMS = Terms(0, True, True)
TILT = torch.tensor([1.0, 3.0, 0.5])


def estimate(scale=1.0):
    """Three particles; the second has no gradient."""
    generator = torch.Generator().manual_seed(0)
    eps, x0, correction, gradient, shift = torch.randn(5, 3, 4, 8, 8, generator=generator)
    gradient = scale * gradient
    gradient[1] = shift[1] = 0
    return Estimate(
        eps=eps,
        x0=x0,
        correction=correction,
        gradient=gradient,
        gradient_norm=gradient.flatten(1).norm(dim=1),
        clean_shift=shift,
        loss=torch.tensor([-2.0, -1.0, 4.0]),
        value=torch.full((3,), torch.nan),
        finite=torch.ones(3, dtype=torch.bool),
    )


def lengths(x):
    return x.flatten(1).norm(dim=1)


def noisy(found):
    """The latents that predictions of x0 and eps belong to."""
    return STEP.a * found.x0 + STEP.s * found.eps


@pytest.mark.parametrize("phase", [0, 1, 2])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_step_is_as_long_as_its_share_of_the_correction(phase, scale):
    found = estimate(scale)
    shift = Guidance(0.5, (1.5, 1.0, 3.0)).shift(found, Terms(phase, True, True), STEP, TILT)
    expected = 0.5 * (1.5, 1.0, 3.0)[phase] * lengths(found.correction)
    torch.testing.assert_close(lengths(shift)[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("rule", ["correction", "velocity", "polyak", "value", "constant"])
def test_every_step_goes_against_the_gradient_and_none_is_none(rule):
    found = estimate()
    shift = Guidance(1, (1, 1, 1), rule).shift(found, TERMS, STEP, TILT)
    cosine = torch.cosine_similarity(shift.flatten(1), found.gradient.flatten(1))
    torch.testing.assert_close(cosine[[0, 2]], -torch.ones(2))
    assert not shift[1].any()


def test_without_a_correction_the_step_is_a_share_of_the_velocity():
    """In units of noise, as the correction is; nothing where there is no signal yet."""
    found = estimate(1e12)
    guidance = Guidance(1, (0.1, 1, 1), "velocity")
    shift = guidance.shift(found, TERMS, STEP, TILT)
    torch.testing.assert_close(lengths(shift)[0], 0.1 * STEP.a * lengths(found.eps - found.x0)[0])
    assert not guidance.shift(found, TERMS, replace(STEP, a=0.0), TILT).any()


def test_the_printed_step_is_polyaks():
    found = estimate()
    shift = Guidance(1, (0.1, 1, 1), "polyak").shift(found, TERMS, STEP, TILT)
    torch.testing.assert_close(lengths(shift)[0], 0.1 * lengths(found.eps)[0] / found.gradient_norm[0])


def test_dps_divides_by_the_size_of_the_reward():
    found = estimate()
    shift = Guidance(1, (3.0, 1, 1), "value").shift(found, TERMS, STEP, TILT)
    torch.testing.assert_close(shift[2], -3.0 / 4.0 * found.gradient[2])


def test_a_filters_proposal_follows_the_tempered_reward_by_the_kernels_variance():
    found = estimate()
    shift = Guidance(1, (1, 1, 1), "variance").shift(found, TERMS, STEP, TILT)
    torch.testing.assert_close(shift, -(STEP.std**2) * TILT.view(-1, 1, 1, 1) * found.gradient)


def test_universal_guidance_changes_the_noise_and_the_prediction_follows():
    found = estimate()
    guidance = Guidance(1, (0.2, 1, 1), "constant", "eps")
    moved = guidance.adjust(found, TERMS, STEP, TILT)
    torch.testing.assert_close(moved.eps, found.eps + 0.2 * STEP.s * found.gradient)
    torch.testing.assert_close(noisy(moved), noisy(found))
    assert guidance.shift(found, TERMS, STEP, TILT) is None


def test_a_shift_of_the_mean_leaves_the_predictions():
    assert Guidance(1, (1, 1, 1)).adjust(found := estimate(), TERMS, STEP, TILT) is found


def test_mpgd_moves_the_step_by_what_it_moves_the_clean_prediction():
    found = estimate()
    moved = CleanGuidance(1, 0.5).adjust(found, STEP)
    kernel, proposal = (PROCESS.kernel(one.x0, one.eps, STEP) for one in (found, moved))
    expected = STEP.a_next * found.clean_shift
    torch.testing.assert_close(proposal.mean - kernel.mean, expected, rtol=0, atol=1e-5)


def test_backward_guidance_turns_the_move_into_noise():
    found = estimate()
    moved = CleanGuidance(1, 0.5, form="eps").adjust(found, STEP)
    torch.testing.assert_close(moved.x0, found.x0 + found.clean_shift)
    torch.testing.assert_close(noisy(moved), noisy(found))


def test_a_clean_step_is_as_long_as_its_share_of_the_correction():
    found = estimate()
    step = CleanGuidance(1, 0.25).step(1000 * found.gradient, found, STEP)
    torch.testing.assert_close(lengths(step)[[0, 2]], 0.25 * lengths(found.correction)[[0, 2]])
    assert not step[1].any()


def test_a_particle_is_moved_by_its_own_numbers():
    found = estimate()
    other = replace(found, correction=found.correction * torch.tensor([1.0, 5.0, 9.0]).view(-1, 1, 1, 1))
    one, two = (Guidance(1, (1, 1, 1)).shift(e, TERMS, STEP, TILT) for e in (found, other))
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[2], two[2])


def test_noise_guidance_moves_a_consistency_function_as_far_as_it_depends_on_the_noise():
    """At a scaling where z's own share is large."""
    step = lcm({**SCHEDULE, "timestep_scaling": 0.001}, 4).steps[2]
    assert step.c_skip > 0.1
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def clean(eps):
        return clean_and_noise(eps, z, step, "epsilon")[0]

    found = replace(estimate(), x0=clean(estimate().eps))
    moved = Guidance(0.5, (1.0, 1.0, 1.0), form="eps").adjust(found, TERMS, step, TILT)
    torch.testing.assert_close(moved.x0, clean(moved.eps))
    assert not torch.equal(moved.x0, found.x0)


@pytest.mark.parametrize("whiten", ["phase", "wgnc", "order"])
@pytest.mark.parametrize("scale", [1e-9, 1.0])
def test_a_share_of_the_noise_points_against_the_gradient_and_passes_for_noise(whiten, scale):
    """The mean stays, and what is drawn has the size of noise whatever the gradient's is; without a gradient it is the draw itself."""
    found, rho = estimate(scale), 0.64
    draws = Draws([NoiseStream(0, "words", 0, k) for k in range(3)], 4, 0, (4, 8, 8), torch.device("cpu"))
    kernel = Gaussian(found.x0, 0.5)
    guidance = NoiseGuidance(0.8, (0.1, 0.8, 1.0), whiten=whiten)
    proposal = guidance.propose(kernel, found, Terms(1, False, True), STEP, TILT, draws)
    noise = draws.normal("step")
    drawn = (proposal.sample(noise) - kernel.mean) / kernel.std
    assert torch.equal(proposal.sample(noise)[1], kernel.sample(noise)[1])
    rows = torch.tensor([0, 2])
    torch.testing.assert_close(proposal.take(rows).sample(noise[rows]), proposal.sample(noise)[rows])
    along = (drawn[rows] - (1 - rho) ** 0.5 * noise[rows]) / rho**0.5
    assert torch.allclose(lengths(along) / 256**0.5, torch.ones(2), atol=0.15)
    cosine = torch.cosine_similarity(along.flatten(1), -found.gradient[rows].flatten(1))
    assert float(cosine.min()) > 0.7


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        (["sampler.eta=0"], "draws none: give sampler=ddim_ancestral"),
        (["method.steering.potential=max"], "neither method.steering nor method.tempering"),
        (["method.search.candidates=2", "method.search.temperature=1"], "give method.search.temperature=0"),
        (["method.guidance.coefficient=[0.5,1.1,0]"], "give shares of at most 1"),
        (["method.guidance.form=eps"], "leave it at mean"),
        (["method=dps", "method.guidance.whiten=wgnc"], "is read with method.guidance.rule=noise only"),
    ],
)
def test_what_a_gradient_as_noise_cannot_be_is_one_line(options, mend):
    with pytest.raises(ConfigError, match=mend) as said:
        jobs_of(parse(["method=ntrk", "sampler.eta=1", *options]))
    assert "\n" not in str(said.value)
