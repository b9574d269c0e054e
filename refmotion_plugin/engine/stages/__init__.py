"""Recipes of the job, each as short as a methods section; the only place where movies, optics, motion and dose meet."""
