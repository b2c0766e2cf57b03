"""Calibration references: which context applies, and what another would choose (R5, R7)."""
