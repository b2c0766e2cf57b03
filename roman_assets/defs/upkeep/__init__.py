"""Upkeep: folding, retention, the window of partitions, and old runs."""
