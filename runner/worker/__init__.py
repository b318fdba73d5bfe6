"""A worker process: `main` starts it, and `loop` says what it does: claim, sample, finish, until nothing is left."""
