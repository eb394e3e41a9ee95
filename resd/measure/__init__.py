"""What is measured beside training: evaluations, and what was forgotten of another task."""
