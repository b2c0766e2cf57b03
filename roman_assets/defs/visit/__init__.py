"""Visits: L3 and L4 (R9, R10)."""
