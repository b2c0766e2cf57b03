"""Dagster's part of the figures for Prometheus, and the program that serves all of them."""
