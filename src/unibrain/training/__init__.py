"""Training the small backbone from scratch on scenes. Nothing here runs when scans are decoded."""
