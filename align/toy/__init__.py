"""Problems of which everything is known exactly: densities, rewards, targets.  Samplers are measured against them."""
