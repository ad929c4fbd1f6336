"""FLUX.1: its components, its text, its transformer, its LoRAs."""
