"""Data releases: planned, made, published (R7, R8, R13)."""
