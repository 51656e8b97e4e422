"""Output of the commands as text for a terminal."""
