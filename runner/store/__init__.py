"""The run folder: its files, records, leases, and the check that all is there."""
