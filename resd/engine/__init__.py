"""Engines: who writes the completions. `base` is the protocol, one module for each engine."""
