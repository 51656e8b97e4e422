"""Commands of `hotpool`, and their output."""
