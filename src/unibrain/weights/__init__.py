"""The published weights: fetched or found on disk, converted once into a backbone folder, listed and verified."""
