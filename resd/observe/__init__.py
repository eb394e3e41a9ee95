"""What an algorithm has at hand: problems in order, rollouts, verdicts, writing, samples in hindsight: see `run`."""
