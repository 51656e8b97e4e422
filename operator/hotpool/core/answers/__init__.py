"""Answers for people, from the function that decides: why, and what if (behaviour F2, F3)."""
