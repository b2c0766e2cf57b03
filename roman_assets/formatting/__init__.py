"""From packets and documents to L1: what is in, and what is made of it (R2, R3)."""
