"""The scheduler that lets a solver sample a pipeline: its steps replayed in any order, their noise, and its sessions."""
