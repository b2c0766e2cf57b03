"""What SOC and SSC hand each other (R12)."""
