"""Proposals, and what is not up to date (R15)."""
