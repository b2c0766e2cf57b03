"""Asset checks: promises about products that people can see kept or broken in the UI."""
