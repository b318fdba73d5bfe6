"""A job's life: job file, run folder, submission, launch, workers, scores, comparison, report, command line."""
