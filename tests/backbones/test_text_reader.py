"""Text encoders are on the device while prompts are read, and only then: a T5 is larger than most networks."""

import torch
from torch import nn

from align.backbones.text import Text, TextEncoder, TextReader, Words


class Moved(nn.Module):
    """Tells where it is asked to go, to devices that need not be there."""

    def __init__(self):
        super().__init__()
        self.places = []

    def to(self, place):
        self.places.append(place.type)
        return self


def test_encoders_come_for_a_new_prompt_and_leave_before_the_network_is_called():
    encoders = [Moved() for _ in range(3)]
    texts = []

    def read(text):
        texts.append((text, [one.places[-1] for one in encoders]))
        return Text(torch.zeros(2, 4))

    reader = TextReader(
        [TextEncoder(None, one) for one in encoders],
        read,
        lambda text: {"t5": Words(((0, 1), (0, 0)), pieces=("a", "b"))},
        torch.device("cuda"),
    )
    moves = ["cpu"]
    for prompt, more in (("a", ["cuda", "cpu"]), ("a", []), ("b", ["cuda", "cpu"])):
        reader.encode(prompt, "")
        reader.rest()
        reader.rest()
        moves += more
        assert all(one.places == moves for one in encoders)
    assert texts == [(text, ["cuda"] * 3) for text in ("a", "", "b")]
