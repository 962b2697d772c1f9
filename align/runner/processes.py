"""From the options of a sampler to the steps of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.config.schema import Config

if TYPE_CHECKING:
    from align.backbones.base import Backbone
    from align.processes.base import Process
    from align.processes.few import Renewal


def process_of(config: Config, backbone: Backbone) -> Process:
    """The steps of a configuration's sampler on a backbone's schedule."""
    from align.processes.ddim import ddim
    from align.processes.few import few
    from align.processes.flow import flow
    from align.processes.glass import glass
    from align.processes.lcm import lcm
    from align.processes.sde import flow_grpo, vp_converted
    from align.released.lcm import released_lcm

    sampler, schedule = config.sampler, backbone.scheduler_config
    if sampler.kind == "flow":
        if sampler.kernel == "flow_grpo":
            return flow_grpo(schedule, sampler.steps, sampler.eta, sampler.phases)
        if sampler.kernel == "vp":
            noise = sampler.eta * sampler.norm
            return vp_converted(sampler.steps, noise, sampler.coefficient, sampler.grid, sampler.phases)
        return flow(schedule, sampler.steps, sampler.eta, sampler.kernel, sampler.phases)
    if sampler.kind == "lcm" and "lcm_variances" in config.method.quirks:
        return released_lcm(schedule, sampler.steps, sampler.eta)
    if sampler.kind == "lcm":
        return lcm(schedule, sampler.steps)
    if sampler.kind == "few":
        kernel: Renewal = "stochastic" if sampler.kernel == "stochastic" else "eta"
        return few(schedule, sampler.steps, sampler.eta, kernel, sampler.start, sampler.timesteps)
    if sampler.kind == "glass":
        return glass(schedule, sampler.steps, sampler.rho, sampler.inner)
    return ddim(schedule, sampler.steps, sampler.eta)
