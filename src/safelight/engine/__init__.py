"""Where torch lives: from noise to pixels, one denoising step at a time."""
