"""Questions about products: by what they are, where they lie, and what came before them."""
