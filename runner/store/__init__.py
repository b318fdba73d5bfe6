"""The run folder: its plan, records, results, scores and leases; repair, and the check that it is complete."""
