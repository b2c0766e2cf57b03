"""What a person decides to reprocess: changes, impact, proposals (R15)."""
