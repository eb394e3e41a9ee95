"""Reflection-Enhanced Self-Distillation (arXiv 2605.12741): train a language model from its own failures."""

__version__ = "0.1.0"
