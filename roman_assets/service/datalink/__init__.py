"""DataLink 1.1: what belongs to a product, by its identifier."""
