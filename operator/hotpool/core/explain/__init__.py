"""Explanations for people, computed by the functions that decide: why, dry run, remedies."""
