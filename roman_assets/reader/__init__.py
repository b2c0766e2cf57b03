"""Reading the archive from notebooks and programs, as the public or as operations."""
