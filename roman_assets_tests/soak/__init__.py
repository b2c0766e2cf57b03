"""A night of half an hour under the real daemon, while everything around it fails in turn."""
