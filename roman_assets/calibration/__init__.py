"""Which CRDS context, which references, which software versions."""
