"""Which CRDS context, which references."""
