"""Generated pools (requirements D5, D6): keys that nodes offer, their ranking and admission, names and specs."""
