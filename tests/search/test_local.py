"""Local search climbs a landscape with one top in the fewest moves, and goes on after it."""

from edgewright.search.strategies.local import LocalSearch


def climb(space, value, count, **options):
    strategy = LocalSearch(space, lambda a: 0.0, 4, **options)
    asked = []
    for _ in range(count):
        new = strategy.ask(1)
        strategy.tell([(a, value(a)) for a in new])
        asked += new
    return asked


def test_climbs_one_position_at_a_time_and_never_further_than_a_neighbour(vectors):
    def value(a):  # one top, at (3, 1, 4, 1, 5)
        return -sum(abs(d - t) for d, t in zip(a.digits, (3, 1, 4, 1, 5), strict=True))

    asked = climb(vectors(), value, 150, founders=1)
    best = asked[0]
    for here in asked[1:]:
        if value(best) == 0:
            break
        assert sum(x != y for x, y in zip(here.digits, best.digits, strict=True)) == 1
        best = max(best, here, key=value)
    assert value(best) == 0


def test_after_the_top_come_the_neighbours_of_the_second(vectors):
    def value(a):
        return -sum(a.digits)

    asked = climb(vectors(2), value, 36, founders=1)
    assert len({a.key() for a in asked}) == 36  # it ends with the space
    top = next(i for i, a in enumerate(asked) if a.digits == (0, 0))
    # Around the top there are ten neighbours; they come before anything else.
    around = {a.digits for a in asked[: top + 11] if 0 in a.digits}
    assert len(around - {(0, 0)}) == 10


def test_without_an_encoding_neighbours_are_mutations(vectors, value):
    space = vectors()
    space.choices = lambda: ()
    asked = climb(space, value, 60, founders=5)
    assert len({a.key() for a in asked}) == 60
    assert max(value(a) for a in asked[5:]) > max(value(a) for a in asked[:5])
