"""Facts: commit records, the folded DuckDB registry, queries on its snapshot."""
