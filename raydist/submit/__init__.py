"""submit: a verb as a job on a Ray cluster."""
