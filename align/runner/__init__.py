"""Runs: plan the items, build the parts, sample, measure, keep every result.

``launch`` starts the runs of a command; ``prepare`` finds out before any work what can go wrong; ``run`` does
one run; ``work`` is its loop.  Torch is imported only when there is work.
"""
