"""How the command ended, as the program that started it sees it."""
EXIT_FINE, EXIT_BUG, EXIT_INPUT, EXIT_FAILED_MOVIES, EXIT_STOPPED = 0, 1, 2, 3, 130
