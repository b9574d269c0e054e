"""The PyTorch engine: movies and particles in, trajectories, dose weights and polished particles out. Knows no host."""
