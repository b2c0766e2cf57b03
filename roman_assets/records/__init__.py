"""The truth: commit records, their order, and the journal they are kept in."""
