"""Latents become pixels, small ones or all, and pixels latents."""
