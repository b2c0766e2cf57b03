"""Science Data Formatting (SDF): L0 packets and ancillary data to L1 files (R2, R3)."""
