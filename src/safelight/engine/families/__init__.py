"""What computes with the models of each family, and what loads them all."""
