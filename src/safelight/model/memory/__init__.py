"""How many bytes a model's parts have, and which plan of precision and placement fits a device."""
