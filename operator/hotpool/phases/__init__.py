"""The phases of one key: view, plan, diff, apply, record (design, section 2); a module for each kind."""
