"""report: what was done since when, what failed and why, what it cost, what to do next."""
