"""Everything that knows Lance: schemas, exactly-once commits, reads, leases."""
