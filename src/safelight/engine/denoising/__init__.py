"""One picture's way from noise: its schedule, the arithmetic of a step, and whether what came of it is finite."""
