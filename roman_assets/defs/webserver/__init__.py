"""Dagster's web server, behind a guard (R1)."""
