"""A job's life: spec, plan, store, launch, work, score, report, command line."""
