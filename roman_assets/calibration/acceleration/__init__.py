"""Faster replacements of upstream functions, with the same results to the last bit.

Each module but `guest` and `installation` replaces one function of a package that romancal runs
on, until that package has a faster one. `docs/upstream.md` holds the text to send upstream for
each.
"""
