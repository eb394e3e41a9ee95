"""What a run remembers and how it asks: playbook, reflections, curation, solutions, prompts.

Text in, text out: nothing here imports torch or an engine. A model is a `types.Generate` callable, a tokenizer a
function that counts tokens.
"""
