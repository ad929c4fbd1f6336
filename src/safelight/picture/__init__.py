"""A picture asked for, taken in, made, encoded, signed and linked to; no model and no HTTP."""
