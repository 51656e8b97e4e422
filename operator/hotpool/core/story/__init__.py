"""What happened, made ready to be told: Events, and the last transitions of a node (behaviour C6, F2)."""
