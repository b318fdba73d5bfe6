"""How long a batch will take on so many ranks, and which arrangement of them is best."""
