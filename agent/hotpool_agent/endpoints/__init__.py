"""Addresses of the node, and endpoints of its services (requirement B13)."""
