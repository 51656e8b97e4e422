"""What people type: the commands of `hotpool` beside the operator itself."""
