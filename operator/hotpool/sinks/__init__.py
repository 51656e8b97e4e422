"""Where results go in Kubernetes, and the errors that every sink answers with."""
