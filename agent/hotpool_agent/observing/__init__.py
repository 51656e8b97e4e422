"""Services that something else runs, and the questions that find out how they are."""
