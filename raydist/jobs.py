"""jobs: the jobs of a Ray cluster: list, logs, stop."""
