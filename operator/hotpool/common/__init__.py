"""Helpers that operator and agent share, outside the API contract. Must not import the rest of hotpool."""
