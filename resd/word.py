"""A word of the command line that says what a setting or a group shall be: `steps=4`, `+task.options.level=easy`."""


def key_value(word: str) -> tuple[str, str]:
    """What is named, without the signs that Hydra has for adding (`+`, `++`) and taking away (`~`), and its value."""
    key, _, value = word.lstrip("+~").partition("=")
    return key, value
