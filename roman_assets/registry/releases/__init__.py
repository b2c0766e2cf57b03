"""What the registry knows of data releases: declared, made, published (R7, R13)."""
