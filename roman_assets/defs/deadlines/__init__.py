"""The deadline report, its checks and alerts (R2, R5, R9, R10)."""
