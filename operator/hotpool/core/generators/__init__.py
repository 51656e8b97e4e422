"""Generated pools (requirements D5, D6): keys that nodes offer, ranks, names, specs, and the plan of one generator."""
