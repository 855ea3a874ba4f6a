"""From predicted latents to pictures and captions."""
