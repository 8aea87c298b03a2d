"""pipeline: all stages as one job that goes on where it stopped."""
