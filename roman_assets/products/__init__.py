"""Identities, file-name grammar and the tables of product kinds and deadlines. No I/O."""
