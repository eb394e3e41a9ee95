"""A run directory: who owns it, what lies in it, checkpoints and how they are found to be whole."""
