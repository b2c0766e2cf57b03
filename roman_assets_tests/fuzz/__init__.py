"""Fuzz targets: one module for each door through which foreign input comes in.

A target is a test under ``@given``. It calls what stands behind the door with arbitrary input and
asserts that only the errors made for bad input come back, within its limits of time and memory. An
input that once broke a door stays in the target as an ``@example``.

Every target takes a few seconds in the suite. ``make fuzz`` runs each for ten minutes.
"""
