"""Scores of decoded pictures and captions, each with its control."""
