"""What keeps archive and registry sound: checks, retention, quality (R13, R14)."""
