"""What several features share: partition work, specs, the memory of sensors."""
