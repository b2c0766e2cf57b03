"""Dagster's web server behind a guard: on a port or a Unix socket, with a token if wanted."""
