"""What starts work without a touch: jobs, sensors, and the run launcher that watches them."""
