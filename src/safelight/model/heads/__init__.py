"""What the head of a file of weights says, in any format, within a second and without torch."""
