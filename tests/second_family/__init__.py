"""A family that is none of Safelight's own: it shows that one more takes a layout, a module, and a line."""
