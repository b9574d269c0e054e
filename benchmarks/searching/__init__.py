"""What the search for hyperparameters is held against: the truth, a dense grid, RELION, its own cost and its own luck."""
