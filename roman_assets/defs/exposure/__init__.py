"""Exposures: L1, L2 and L4 as their packets come in (R2, R5)."""
