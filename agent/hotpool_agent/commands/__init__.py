"""What people type, beside `run`: one module for each kind of command, registered by `cli`."""
