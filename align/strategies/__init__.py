"""What wraps whole trajectories: they call ``Sampler.sample`` and never reach into the loop."""
