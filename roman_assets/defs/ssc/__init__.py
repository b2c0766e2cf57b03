"""The SSC's half: hand-over, deliveries, and commands in its place (R12)."""
