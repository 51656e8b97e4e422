"""What comes in: wire objects decoded into core values, and the watches that bring them."""
