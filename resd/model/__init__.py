"""The trained model: loading, sharding, packing, hidden states, and the teacher's weights."""

from transformers import utils

# Asked for by speculative decoding alone, which nothing here does; where it is installed it costs every start seconds.
utils.is_sklearn_available = lambda: False
