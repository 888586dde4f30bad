"""Planted faults: whether the tests notice what users would suffer from. ``make mutants`` plants them."""
