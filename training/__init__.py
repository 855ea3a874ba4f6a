"""Trains the small backbone on scenes. It stands beside the package: nothing here runs when scans are decoded."""
