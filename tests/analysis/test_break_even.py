"""From how many pictures on a training is cheaper than guidance."""

import pandas

from align.analysis.break_even import break_even

COSTS = pandas.DataFrame(
    [
        ("plain", "network_forward", 25.0),
        ("tuned", "network_forward", 25.0),
        ("guided", "network_forward", 25.0),
        ("guided", "network_backward", 25.0),
        ("guided", "decoder_forward", 400.0),
        ("tuned and guided", "network_forward", 50.0),
        ("tuned and guided", "network_backward", 50.0),
    ],
    columns=["arm", "cost", "mean"],
)


def test_passes_of_the_network_are_what_counts():
    (found,) = break_even(
        {"tuned": 1001, "tuned and guided": 0}, COSTS
    )  # not against plain, which costs the same
    assert (found.trained, found.guided, found.saved) == ("tuned", "guided", 25)
    assert found.pictures == 41


def test_what_is_trained_and_dearer_saves_nothing():
    assert not break_even({"tuned and guided": 1001}, COSTS)
