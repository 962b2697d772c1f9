"""What wraps whole samplings: they are made again and again from other noise, or for other words."""
