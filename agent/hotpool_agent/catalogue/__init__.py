"""What a node's catalogue says: its shapes, and the reader that tells every error at once."""
