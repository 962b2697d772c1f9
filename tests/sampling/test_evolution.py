"""Evolution of genomes: the genome of zeros first, none twice, the budget exactly, the best as parents."""

import math
import random
from itertools import count

import pytest

from align.sampling.evolution import Evolution, Sizes, best, child, fresh, mutant

SIZES = Sizes(budget=23, population=8, parents=4, mutants=3, children=3, rate=0.3)


def draw(kind, generation, attempt, number):
    chance = random.Random(f"{kind} {generation} {attempt}")
    return [chance.random() for _ in range(number)]


def evolve(choices=(4, 3, 5, 2, 4), sizes=SIZES, value=sum):
    """The generations of a whole search, and the search."""
    search, generations = Evolution(choices, sizes, draw), []
    while genomes := search.propose():
        search.learn(genomes, [value(genome) for genome in genomes])
        generations.append(genomes)
    return generations, search


def test_a_number_a_gene_chooses_among_its_words():
    assert fresh([0.0, 0.99, 0.5], [4, 4, 2]) == (0, 3, 1)


def test_a_mutant_is_a_parent_with_some_genes_drawn_anew():
    parents = [(0, 0, 0), (1, 2, 1)]
    assert mutant([0.6, 0.1, 0.5, 0.29, 0.9, 0.9, 0.1], parents, (4, 3, 2), 0.3) == (3, 2, 0)
    assert mutant([0.6, 0.1, 0.5, 0.29, 0.9, 0.9, 0.1], parents, (4, 3, 2), 0.0) == parents[1]


def test_a_child_has_each_gene_of_one_of_its_parents():
    parents = [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    assert child([0.0, 0.9, 0.2, 0.8, 0.3], parents) == (0, 2, 0)
    assert child([0.4, 0.4, 0.2, 0.8, 0.3], parents) == parents[1]


def test_the_best_come_first_of_equal_ones_the_earlier_and_nan_last():
    rated = [(math.nan, (0,)), (1.0, (1,)), (2.0, (2,)), (1.0, (3,)), (-math.inf, (4,))]
    assert [genome for _, genome in best(rated, 4)] == [(2,), (1,), (3,), (0,)]


@pytest.mark.parametrize("budget", [1, 7, 8, 9, 14, 23, 100])
def test_the_budget_is_met_exactly_and_no_genome_comes_twice(budget):
    generations, _ = evolve(sizes=Sizes(budget, 8, 4, 3, 3, 0.3))
    genomes = [genome for generation in generations for genome in generation]
    assert len(genomes) == len(set(genomes)) == budget
    assert genomes[0] == (0, 0, 0, 0, 0)
    assert all(len(generation) <= 8 for generation in generations)


def test_a_budget_of_all_that_there_are_finds_them_all():
    generations, _ = evolve(choices=(2, 3), sizes=Sizes(6, 4, 2, 2, 2, 0.1))
    assert sorted(genome for generation in generations for genome in generation) == [
        (a, b) for a in range(2) for b in range(3)
    ]
    more, _ = evolve(choices=(2, 3), sizes=Sizes(50, 4, 2, 2, 2, 0.1))
    assert sum(map(len, more)) == 6


def test_the_last_mutants_count_as_all_others_do():
    # The release forgets them, and has what it knew before twice.
    sizes = Sizes(budget=11, population=8, parents=4, mutants=3, children=3, rate=0.3)
    later = count()  # every genome is better than all before it
    generations, search = evolve(sizes=sizes, value=lambda genome: next(later))
    assert len(generations[1]) == 3
    assert [genome for _, genome in search.top] == [*generations[1][::-1], generations[0][-1]]


def test_a_genome_without_a_value_is_no_parent_while_there_are_others():
    _, search = evolve(value=lambda genome: math.nan if genome[0] else float(sum(genome)))
    assert all(genome[0] == 0 for _, genome in search.top)


def test_it_finds_better_ones_than_drawing_freely():
    def top(sizes):
        return evolve((5,) * 8, sizes)[1].top[0][0]

    assert top(Sizes(60, 10, 4, 5, 5, 0.2)) > top(Sizes(60, 60, 4, 5, 5, 0.2))
