"""Hugging Face's text-to-image and image-to-image, as its toolkit and Azure's scoring route have them."""
