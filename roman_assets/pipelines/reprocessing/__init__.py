"""What something new would change, and making it again once a person said so (R3, R14, R15)."""
