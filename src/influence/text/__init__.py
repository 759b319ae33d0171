"""Text in and out of a model: tokenizer, chat template, incremental detokenizer.

Knows files of a model folder and strings; nothing of weights, engines or requests.
"""
