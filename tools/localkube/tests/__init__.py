"""The tests of the tool; a package, so that import-linter sees them."""
