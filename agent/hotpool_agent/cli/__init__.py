"""Commands of `hotpool-agent`. A module is imported when its command runs."""
