"""The gradient: samples into micro-batches, loss, optimizer, average of the teacher: see `learner`."""
