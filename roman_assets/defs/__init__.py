"""What Dagster runs: assets, checks, sensors, schedules and jobs, by feature."""
