"""Notices of new, overwritten and removed products to consumers."""
