"""Everything that calls the Kubernetes API: clients, watches, decoding, writers, leader election."""
