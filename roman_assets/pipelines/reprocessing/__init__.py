"""Reprocessing: what something new would change, and doing it once approved (R3, R14, R15)."""
