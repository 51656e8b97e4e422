"""Services that are pods: what Kubernetes says of them, and how it is heard."""
