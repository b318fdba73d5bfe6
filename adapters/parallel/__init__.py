"""Several ranks for one evaluation of the model: its sequence, or its guidance branches, shared out among them."""
