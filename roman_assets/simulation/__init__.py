"""What feeds the platform where the real thing cannot be: the telescope and the SSC."""
