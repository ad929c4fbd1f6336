"""FLUX.1's parts as single files: what a file holds, under which names, of which sizes. Reads heads only."""
