"""Access to the Kubernetes API: clients, watches, decoding, writers, leader election."""
