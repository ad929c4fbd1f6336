"""The networks and how they learn: autoencoder, text encoders, transformer; optimizer, devices, checkpoints."""
