"""`--json-schema` and `--regex`: what the text must be, from the command line to a grammar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influence.cli.failure import BadUsage

if TYPE_CHECKING:
    from influence.cli.loading import TextModel
    from influence.generation.constraint import ConstraintSource
    from influence.generation.structured import ConstraintSpec

# Of the file, blanks and all; the schema itself has a limit of its own.
_MAX_FILE_BYTES = 8 << 20


def read_structure(json_schema: str | None, regex: str | None) -> ConstraintSpec | None:
    """The structure that one of the options asks for, None if none does.

    Raises BadUsage for both at once and for a file that can't be read as JSON,
    InvalidParameter for what can't be enforced.
    """
    if json_schema is not None and regex is not None:
        raise BadUsage(
            "--json-schema and --regex were both given",
            hint="leave one of them out; a schema can hold patterns for its strings",
        )
    if json_schema is None and regex is None:
        return None
    from influence.generation.structured import ConstraintSpec

    if json_schema is None:
        return ConstraintSpec.regex(regex, name="--regex")
    return ConstraintSpec.json_schema(_read_json(Path(json_schema)), name="--json-schema")


def compiled(structure: ConstraintSpec, loaded: TextModel) -> ConstraintSource:
    """The structure as a grammar over the model's tokens. Raises InvalidParameter, TokenizerError."""
    from influence.generation.structured import ConstraintVocabulary, compile_constraint

    vocabulary = ConstraintVocabulary(loaded.tokenizer, loaded.model.spec.vocab_size, loaded.eos_ids)
    return compile_constraint(structure, vocabulary)


def _read_json(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadUsage(
            f"{path} can't be read: {error.strerror or error}",
            hint="name a file that holds a JSON schema",
        ) from error
    if len(content) > _MAX_FILE_BYTES:
        raise BadUsage(f"{path} is larger than {_MAX_FILE_BYTES >> 20} MiB", hint="name a JSON schema")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadUsage(
            f"{path} is no JSON: {problem}",
            hint='a schema looks like {"type": "object", "properties": {"name": {"type": "string"}}}',
        ) from error
