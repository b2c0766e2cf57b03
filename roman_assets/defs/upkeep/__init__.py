"""Upkeep: folding, retention, and the window of partitions."""
