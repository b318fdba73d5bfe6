"""Room of the Slurm launcher; `genrun.runner.launch` holds those of one machine."""
