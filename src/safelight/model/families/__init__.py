"""What tells the families of models apart, without torch: a file for each, and one line of the registry."""
