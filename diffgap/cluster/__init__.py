"""Ray clusters: connection, capacity, placement groups and job submission."""
