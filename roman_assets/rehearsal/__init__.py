"""A survey plan replayed on a simulated clock: which deadlines it would keep, on what."""
