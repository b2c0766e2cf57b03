"""Cutouts of L2 and L3 images (SODA 1.0), and pictures of them."""
