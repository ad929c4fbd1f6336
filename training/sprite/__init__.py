"""The recipe that trains sprite, the small text-to-image model of the package."""
