"""Explanations for users, computed by the functions that decide: why, dry run, remedies."""
