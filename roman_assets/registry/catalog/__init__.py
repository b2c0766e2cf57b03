"""The registry's tables: its schema, rad's metadata tables, and the IVOA's view."""
