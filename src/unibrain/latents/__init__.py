"""Names and shapes of the four latents; extracting them once and keeping them on disk."""
