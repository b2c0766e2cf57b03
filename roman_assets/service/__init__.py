"""The archive service: web pages and interfaces over the public products and registry.

It serves the public role only (R1): the public tree and the public registry, read-only. Dagster's
UI is another server, in `roman_assets.defs.webserver`.
"""
