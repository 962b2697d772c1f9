"""What a checkpoint's scheduler file states: the process that the network was trained on, and where steps are placed.

The file names a solver too, which is not read: how steps are taken is ``sampler``'s to say.  All that the file states of
the process is honoured or refused.  Imports no torch, so that it is told before anything is loaded.

There are two kinds: variance-preserving diffusion, whose betas the file states, and flow matching, whose levels it spaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeGuard

_LINSPACE = (
    "LMSDiscrete EulerDiscrete EulerAncestralDiscrete HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete "
    "DPMSolverMultistep DPMSolverSinglestep DPMSolverSDE DEISMultistep UniPCMultistep SASolver"
)
_LEADING = "DDIM DDIMParallel DDPM DDPMParallel PNDM LCM TCD"
CLASSES = {
    f"{name}Scheduler": spacing
    for spacing, names in (("linspace", _LINSPACE), ("leading", _LEADING))
    for name in names.split()
}
"""diffusers' schedulers of discrete variance-preserving processes, whose betas their files state, and the
``timestep_spacing`` of each where the file states none."""
FLOW = "FlowMatchEulerDiscreteScheduler"
"""diffusers' scheduler of flows; a network that predicts the velocity eps - x0."""
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "v_prediction")
VELOCITY = "velocity"
SPACINGS = ("leading", "trailing", "linspace")
SHIFTS = ("exponential", "linear")
CURVES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
"""Other ways to space a flow's levels, of which at most one can be on.  A diffusion's belong to its own solver."""

_CLIPPED = "cuts the predicted latents, which diffusers' pipelines do not with latent models either"
_REFUSED = {
    **dict.fromkeys(("clip_sample", "thresholding"), _CLIPPED),
    **dict.fromkeys(("use_flow_sigmas", "use_dynamic_shifting"), "is of flow matching"),
}
"""Switches that change the process, and what is wrong with them."""
_READ = (
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type"),
    *("timestep_spacing", "steps_offset", "set_alpha_to_one", "rescale_betas_zero_snr"),
    *("original_inference_steps", "timestep_scaling"),
)
_SOLVER = (
    "_class_name _diffusers_version clip_sample_range dynamic_thresholding_ratio sample_max_value "
    "skip_prk_steps interpolation_type sigma_min sigma_max flow_shift time_shift_type shift_terminal "
    "lambda_min_clipped algorithm_type solver_order solver_type solver_p lower_order_final euler_at_final "
    "predict_x0 disable_corrector predictor_order corrector_order final_sigmas_type timestep_type "
    "variance_type noise_sampler_seed"
)
"""Keys that say nothing of the process as it is sampled here: the solver's own, limits of switches that are off, and those
whose other values are refused."""


def read_schedule(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The process that the JSON object of a scheduler file states, complete, as ``ddim``, ``lcm`` and ``flow`` take it.

    Betas have to stand in the file.  Other keys that do not have the default of the class that it names.  A flow's is told by
    its ``prediction_type``, which is ``velocity``.

    Raises:
        ValueError: naming the key and the mend.
    """
    name = str(stated.get("_class_name"))
    if name == FLOW:
        return _read_flow(stated)
    if name == "DPMSolverMultistepScheduler" and stated.get("use_flow_sigmas"):
        return _read_solved_flow(stated)
    if name not in CLASSES:
        raise ValueError(
            f"_class_name={name} is neither of a discrete process of given betas nor of a flow, on which alone networks are "
            f"sampled here: give a checkpoint whose scheduler is DDIMScheduler, EulerDiscreteScheduler or the like, or {FLOW}"
        )
    for key, wrong in _REFUSED.items():
        if stated.get(key):
            raise ValueError(f"{key}={_shown(stated[key])} {wrong}: put false there")
    _one_of(stated, "timestep_type", ("discrete",), "discrete")
    if str(stated.get("variance_type")).startswith("learned"):
        raise ValueError(
            f"variance_type={stated['variance_type']} is of a network that predicts variances too: give another checkpoint"
        )
    clean = name != "PNDMScheduler" and stated.get("final_sigmas_type") != "sigma_min"
    found = {
        "num_train_timesteps": _number(stated, "num_train_timesteps", 1000, 1),
        **_betas(stated),
        "prediction_type": _one_of(stated, "prediction_type", PREDICTIONS, "epsilon"),
        "timestep_spacing": _one_of(stated, "timestep_spacing", SPACINGS, CLASSES[name]),
        "steps_offset": _number(stated, "steps_offset", 0, 0),
        "set_alpha_to_one": _switch(stated, "set_alpha_to_one", clean),
        "rescale_betas_zero_snr": _switch(stated, "rescale_betas_zero_snr", False),
        "original_inference_steps": _number(stated, "original_inference_steps", 50, 1),
        "timestep_scaling": _number(stated, "timestep_scaling", 10.0, 0),
    }
    betas = found["trained_betas"]
    if betas is not None and len(betas) != found["num_train_timesteps"]:
        raise ValueError(
            f"trained_betas lists {len(betas)}, and num_train_timesteps is {found['num_train_timesteps']}: give as many"
        )
    if found["rescale_betas_zero_snr"] and found["prediction_type"] == "epsilon":
        raise ValueError(
            "rescale_betas_zero_snr=true begins without any signal, where a prediction_type of epsilon says nothing: "
            "put false there, or v_prediction"
        )
    return found


def is_flow(schedule: Mapping[str, Any]) -> bool:
    """Whether what ``read_schedule`` found is a flow's."""
    return bool(schedule["prediction_type"] == VELOCITY)


def _read_solved_flow(stated: Mapping[str, Any]) -> dict[str, Any]:
    """A flow for which the file names a solver of diffusions (SANA): it begins a training step below noise alone."""
    prediction = _one_of(stated, "prediction_type", ("flow_prediction",), None)
    training = _number(stated, "num_train_timesteps", 1000, 2)
    shift = _number(stated, "flow_shift", 1.0, 1e-6)
    flow = _read_flow({"prediction_type": prediction, "num_train_timesteps": training, "shift": shift})
    return {**flow, "spaced": 1 - 1 / training}


def _read_flow(stated: Mapping[str, Any]) -> dict[str, Any]:
    if stated.get("invert_sigmas"):
        raise ValueError(
            "invert_sigmas=true is of a network whose time runs from noise, 0, to pictures, 1: give another checkpoint"
        )
    terminal = stated.get("shift_terminal")
    if terminal is not None and not (is_number(terminal) and 0 <= terminal < 1):
        raise ValueError(
            f"shift_terminal={_shown(terminal)} is no level from 0 to below 1: give one, or null"
        )
    found = {
        "num_train_timesteps": _number(stated, "num_train_timesteps", 1000, 1),
        "prediction_type": VELOCITY,
        "shift": _number(stated, "shift", 1.0, 1e-6),
        "use_dynamic_shifting": _switch(stated, "use_dynamic_shifting", False),
        "base_shift": _number(stated, "base_shift", 0.5, 0),
        "max_shift": _number(stated, "max_shift", 1.15, 0),
        "base_image_seq_len": _number(stated, "base_image_seq_len", 256, 1),
        "max_image_seq_len": _number(stated, "max_image_seq_len", 4096, 1),
        "time_shift_type": _one_of(stated, "time_shift_type", SHIFTS, "exponential"),
        "shift_terminal": terminal or None,
        **{key: _switch(stated, key, False) for key in CURVES},
    }
    if found["max_image_seq_len"] <= found["base_image_seq_len"]:
        raise ValueError(
            f"max_image_seq_len={found['max_image_seq_len']} is not above base_image_seq_len={found['base_image_seq_len']}: "
            "give two lengths that a line can be drawn through"
        )
    on = [key for key in CURVES if found[key]]
    if len(on) > 1:
        raise ValueError(
            f"{on[0]}=true and {on[1]}=true are two ways to space levels: put false at one of them"
        )
    return found


def dynamic_shift(schedule: Mapping[str, Any], tokens: int) -> float | None:
    """mu, by which a flow's levels are shifted for pictures of so many tokens, not clamped; ``None`` where nothing is."""
    if not schedule["use_dynamic_shifting"]:
        return None
    low, high = schedule["base_image_seq_len"], schedule["max_image_seq_len"]
    slope = (schedule["max_shift"] - schedule["base_shift"]) / (high - low)
    return float(schedule["base_shift"] + slope * (tokens - low))


def unread(stated: Mapping[str, Any]) -> list[str]:
    """What a scheduler file states that has no part here and is not off: how its own solver chooses levels, unknown keys."""
    if stated.get("_class_name") == FLOW:
        known = {"_class_name", "_diffusers_version", "invert_sigmas", *_read_flow(stated)}
    else:
        known = {*_SOLVER.split(), *_REFUSED, *_READ}
    return [
        f"{key}={_shown(value)}"
        for key, value in stated.items()
        if key not in known and value not in (None, False)
    ]


def check_steps(schedule: Mapping[str, Any], steps: int) -> None:
    """Refuse a number of sampling steps that a schedule cannot place. Raises ValueError, which tells the number that it can."""
    if not is_flow(schedule):
        timesteps(schedule, steps)
    elif steps == 1 and schedule["shift_terminal"] is not None:
        raise ValueError(
            "shift_terminal stretches the levels to one that a single step has not: the least number is 2"
        )


def listed_timesteps(schedule: Mapping[str, Any], steps: int, listed: Sequence[int] | None) -> list[int]:
    """The timesteps that are listed, or as many evenly trailing ones, whatever spacing the schedule has.

    Raises:
        ValueError: they are not there; the message ends with the mend.
    """
    if listed is None:
        return timesteps({**schedule, "timestep_spacing": "trailing"}, steps)
    last = schedule["num_train_timesteps"] - 1
    if len(listed) != steps or any(one <= two for one, two in pairwise(listed)) or not listed[-1] >= 0:
        raise ValueError(f"timesteps {', '.join(map(str, listed))} are not {steps} that fall to 0 or above")
    if listed[0] > last:
        raise ValueError(f"timestep {listed[0]} is beyond the last of the training: the largest is {last}")
    return list(listed)


def timesteps(schedule: Mapping[str, Any], steps: int) -> list[int]:
    """Training timesteps of a number of sampling steps, the noisiest first, as diffusers' DDIM places them.

    Raises:
        ValueError: the schedule has no such number of timesteps; the message ends with the largest number up to it that
            it has.
    """
    times = _placed(schedule, steps)
    if times is None:
        most = next(
            (n for n in range(min(steps, schedule["num_train_timesteps"]), 0, -1) if _placed(schedule, n)), 0
        )
        spacing, offset = schedule.get("timestep_spacing", "leading"), schedule.get("steps_offset", 0)
        raise ValueError(
            f"{schedule['num_train_timesteps']} training steps, timestep_spacing {spacing} and steps_offset {offset} leave "
            f"no {steps} different timesteps: the largest number up to there is {most}"
        )
    return times


def _placed(schedule: Mapping[str, Any], steps: int) -> list[int] | None:
    training: int = schedule["num_train_timesteps"]
    spacing = schedule.get("timestep_spacing", "leading")
    if not 1 <= steps <= training:
        return None
    if spacing == "leading":
        times = [k * (training // steps) + schedule.get("steps_offset", 0) for k in reversed(range(steps))]
    elif spacing == "trailing":
        gap = (training - training / steps) - training  # as numpy's arange rounds it
        times = [round(training + k * gap) - 1 for k in range(steps)]
    else:
        gap = (training - 1) / max(steps - 1, 1)
        times = [round(k * gap) for k in reversed(range(steps))]
    falling = all(one > two for one, two in pairwise(times))
    return times if falling and times[0] < training and times[-1] >= 0 else None


def _betas(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the file lists, or how they are made."""
    listed = stated.get("trained_betas")
    found = {"trained_betas": listed, "beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    if listed is not None:
        if not (isinstance(listed, list) and listed and all(is_number(b) and 0 < b < 1 for b in listed)):
            raise ValueError("trained_betas is no list of numbers between 0 and 1: give one, or null")
        return found
    found["beta_schedule"] = _one_of(stated, "beta_schedule", BETA_SCHEDULES, None)
    if found["beta_schedule"] == "squaredcos_cap_v2":  # which has no others
        return found
    for key in ("beta_start", "beta_end"):
        value = stated.get(key)
        if not is_number(value) or not 0 < value < 1:
            raise ValueError(
                f"{key}={_shown(value)} is no number between 0 and 1: state what the network was trained on"
            )
        found[key] = value
    return found


def _one_of(stated: Mapping[str, Any], key: str, known: tuple[str, ...], default: str | None) -> str:
    value = stated.get(key)
    value = default if value is None else value
    if value in known:
        return str(value)
    raise ValueError(
        f"{key}={_shown(value)} is not supported: it can be {', '.join(known)}, as the network was trained"
    )


def _number(stated: Mapping[str, Any], key: str, default: float, least: float) -> Any:
    """A number of the default's type."""
    value = stated.get(key)
    if value is None:
        return default
    if not is_number(value) or value < least or value != type(default)(value):
        raise ValueError(f"{key}={_shown(value)} is no number of at least {least}: give one")
    return type(default)(value)


def _switch(stated: Mapping[str, Any], key: str, default: bool) -> bool:
    value = stated.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ValueError(f"{key}={_shown(value)} is neither true nor false: give one of them")
    return value


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _shown(value: object) -> str:
    text = {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
