"""Tests on clusters of a control plane alone."""
