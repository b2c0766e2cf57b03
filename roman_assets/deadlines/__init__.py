"""How deadlines stand: statistics, a page for people, and alerts (R2, R5, R9, R10)."""
