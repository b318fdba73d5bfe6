"""Launching: orders for workers, the protocol of launchers, and those of this machine; Slurm's is in `genrun.slurm`."""
