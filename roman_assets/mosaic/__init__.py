"""From the L2 of a visit to L3 and L4 (R9, R10)."""
