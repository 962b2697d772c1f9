"""Recorded runs of DPO-Diff's evolutionary solver, with a synthetic loss: every genome, every draw, exactly."""

import json

from align.released.evolution import ReleasedEvolution
from align.sampling.evolution import Sizes

from .replay import SLIM

AHEAD = 10
"""So many proposals are drawn at a time, and what a search for new ones does not need of them is thrown away."""


def pytest_generate_tests(metafunc):
    given = metafunc.config.getoption("--golden")
    folders = [SLIM, *([given] if given else [])]
    paths = [path for folder in folders for path in sorted((folder / "noise").glob("epo_*.json"))]
    names = [f"{'slim' if path.is_relative_to(SLIM) else 'given'}-{path.stem}" for path in paths]
    metafunc.parametrize("path", paths, ids=names)


class Recorded:
    """The recorded draws, as uniform numbers: the middle of those that give the recorded whole number."""

    def __init__(self, draws, choices, rate):
        self.draws, self.choices, self.rate = iter(draws), choices, rate
        self.ahead, self.search = [], None

    @property
    def parents(self):
        return len(self.search.top)

    def __call__(self, kind, generation, attempt, number):
        if attempt % AHEAD == 0:
            self.ahead = [getattr(self, kind)() for _ in range(AHEAD)]
        assert len(self.ahead[attempt % AHEAD]) == number
        return self.ahead[attempt % AHEAD]

    def whole(self, *bounds):
        what, limits, drawn = next(self.draws)
        assert (what, limits) == ("randint", list(bounds))
        return (drawn + 0.5) / bounds[-1]

    def real(self, name):
        what, drawn = next(self.draws)
        assert what == name
        return drawn

    def fresh(self):
        self.real("uniform")  # whether to explore, which is always so
        return [self.whole(0, size) for size in self.choices]

    def mutant(self):
        parent, whether, which = self.whole(self.parents), [], []
        for size in self.choices:
            whether.append(self.real("random_sample"))
            which.append(self.whole(size) if whether[-1] < self.rate else 0.0)
        return [parent, *whether, *which]

    def child(self):
        return [self.whole(self.parents), self.whole(self.parents), *(self.whole(2) for _ in self.choices)]


class Watched(ReleasedEvolution):
    """Remembers every genome that it meets, and whether it is evaluated."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.met = []

    def _proposal(self, kind, attempt):
        genome = super()._proposal(kind, attempt)
        self.met.append([list(genome), genome not in self.seen])
        return genome


def loss(genome):
    terms = (7 * c * c + 3 * i * c + (c * (i + 2)) % 5 for i, c in enumerate(genome))
    return (31 * sum(term % 23 for term in terms) + 17 * sum(genome)) % 101 / 101


def test_every_genome_draw_and_survivor_is_the_recorded_one(path):
    recorded = json.loads(path.read_text())
    conf, table = recorded["options"]["conf"], recorded["table"]
    sizes = Sizes(
        budget=conf["num_samples"],
        population=conf["population_num"],
        parents=conf["select_num"],
        mutants=conf["mutation_num"],
        children=conf["crossover_num"],
        rate=conf["m_prob"],
    )
    choices = [len(words) for words in table]
    draws = Recorded(recorded["draws"], choices, sizes.rate)
    search = draws.search = Watched(choices, sizes, draws)
    tops = []
    while not search.done:
        genomes = search.propose()
        search.learn(genomes, [-loss(genome) for genome in genomes])
        for number, known in ((sizes.parents, search.top), (sizes.population, search.pool)):
            top = [list(genome) for _, genome in known]
            tops.append({"k": number, "after_evaluations": len(search.seen), "top": top})
    assert search.met == [[genome, evaluated] for genome, evaluated, _ in recorded["evals"]]
    assert [loss(genome) for genome, evaluated, _ in recorded["evals"] if evaluated] == [
        value for _, _, value in recorded["evals"] if value is not None
    ]
    assert tops == recorded["tops"]
    assert next(draws.draws, None) is None
    words = [[",".join(table[i][c] for i, c in enumerate(one)), -value] for value, one in search.pool]
    assert words == recorded["result"]
    assert len(search.seen) == recorded["evaluations"]
