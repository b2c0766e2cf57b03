"""TAP 1.1: questions in ADQL about products and their metadata, never about sources (R11)."""
