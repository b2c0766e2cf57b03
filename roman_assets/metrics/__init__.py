"""Figures of a running installation, for Prometheus."""
