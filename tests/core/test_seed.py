from edgewright.core.seed import derive, rng


def test_derived_seeds_are_fixed_for_ever():
    # A change here would change every study ever recorded.
    assert derive(0, "search") == 825915258250895778
    assert derive(0, "a", "b") != derive(0, "a/b", "c") != derive(1, "a", "b")


def test_rng_repeats():
    assert rng(3, "x").random() == rng(3, "x").random() != rng(4, "x").random()
