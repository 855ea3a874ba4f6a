"""Where a run keeps its files: atomic writes, progress, run folders and what is up to date in them."""
