"""The image networks of published scores, in plain PyTorch, with their published weights: `weights.NETWORKS`."""
