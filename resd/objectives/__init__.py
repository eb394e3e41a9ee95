"""The mathematics of the loss: pure tensor code that knows torch but no model, process group or config."""
