"""What SOC and SSC exchange: manifests of L2 images, and deliveries of L3 and L4 (R12)."""
