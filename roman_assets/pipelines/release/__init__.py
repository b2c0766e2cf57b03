"""Data releases: declared, made in steps that can be repeated, published all at once (R7, R13)."""
