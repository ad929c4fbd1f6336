"""Safelight: FLUX.1-schnell, and models built like it, served as a managed online endpoint on machines you own."""

__version__ = "0.1.0"
