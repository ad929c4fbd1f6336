"""LoRA files for FLUX.1, in every naming that there is, read whole or refused."""
