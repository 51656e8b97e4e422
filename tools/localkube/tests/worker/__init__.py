"""Tests on clusters with a node that runs pods."""
