"""Tests that need no built program."""
