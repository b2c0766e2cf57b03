"""The registry's engine: records are folded into tiers, and tiers are read as snapshots."""
