"""The trained model: loading, sharding, packing, hidden states, and the teacher's weights."""
