"""A simulated telescope that feeds the landing area; a user with real data never imports it."""
