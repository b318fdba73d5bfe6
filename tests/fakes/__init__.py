"""Stand-ins for the model: a worker that needs no torch, faults it meets, and a command line that starts it."""
