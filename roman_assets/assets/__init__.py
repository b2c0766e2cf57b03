"""The asset graph: what is made from what, and thin functions that call the pipelines."""
