"""One file a family: what its config.json says, as a ModelSpec, and what its tensors are called.

`read(config)` is all that a family is. Its defaults are those of transformers'
configuration_<type>.py, its arithmetic that of modeling_<type>.py.
"""
