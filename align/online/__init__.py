"""Online black-box optimisation: rounds of pictures, each asked about once, and a surrogate that guides the next."""
