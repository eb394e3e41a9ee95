"""The tokenizer of nano: byte-level BPE over pieces that keep every convention a token of its own.

A newline with its indentation, a bracketed condition, a keyword and a node id are one piece each; colours on a tape
and digits stand alone, so that a pattern reads the same everywhere. Any text round-trips.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TURN, START_OF_TURN, PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
PIECES = "|".join(
    (
        r"\n *",
        r"```",
        r"[\[(](?:[RBYG]|[A-Z]{4,6})[\])]",
        r" (?=[A-Z]{2,}_[A-Z]{2})",
        r"[A-Z]{2,}_[A-Z]{2}",
        r" ?[a-z]\d+:?",
        r"[RBYG](?=[RBYG]*(?![A-Za-z_]))",
        r" ?[A-Za-z]+",
        r"-0*",
        r"[0-9]",
        r" ?[^\sA-Za-z0-9]",
        r"\s",
    )
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int, max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `vocabulary` tokens that fits `texts`; at least the 256 bytes and 3 special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START_OF_TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
