"""influence: find Hugging Face models, download them intact, run them on your own machine.

The command line is `influence --help`. Importing this package loads nothing
heavy; the parts are on floors, lowest first:

    errors                     every way to fail
    weights, text              safetensors files; tokenizer, chat template, streaming text
    models                     config.json -> ModelSpec, checkpoint names -> slots
    engines                    run a ModelSpec: native (C++), reference (numpy)
    generation                 requests, scheduling, the loop
    cli                        the commands
"""

__version__ = "0.1.0"
