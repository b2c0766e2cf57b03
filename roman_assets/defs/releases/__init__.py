"""Data releases (R7, R13)."""
