"""Commands of the program `hotpool-agent`; each module is imported when its command runs."""
