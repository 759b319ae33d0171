"""Text to token ids and back, by the model's own tokenizer.json.

The file is taken at its word, through the `tokenizers` package; transformers 5
replaces parts of it for some tokenizer classes (a Llama tokenizer gets another
rule for the space after a special token), while the file is what every other
runtime follows and what the model's authors tested.

    folder/
      tokenizer.json            required
      tokenizer_config.json     special tokens (special_tokens.py), chat template
      special_tokens_map.json   older folders
      added_tokens.json         older folders
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from influence.errors import InvalidParameter, ModelFilesMissing, TokenizerError
from influence.text import backend as guard
from influence.text.decoder_stages import Chain, make_chain
from influence.text.model_files import read_bytes
from influence.text.special_tokens import SpecialTokens, read_special_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_OTHER_FORMATS = ("tokenizer.model", "vocab.json", "spiece.model", "tekken.json", "vocab.txt")
_ID_LIMIT = 1 << 32


class Tokenizer:
    """One model's tokenizer; immutable, and usable from several threads at once.

    It knows nothing of the model's config: ids that generation must stop at are
    here only as far as the tokenizer's own files name them.
    """

    def __init__(self, path: Path, backend: Backend, special: SpecialTokens) -> None:
        self.path = path
        self._backend = backend
        self._decoder_state = guard.decoder_state(backend)
        self._literal_lock = threading.Lock()
        self.special_tokens: Mapping[str, str] = dict(special.named)
        self.warnings: tuple[str, ...] = tuple(_unknown_tokens(backend, special))
        added = backend.get_added_tokens_decoder()
        self._special_contents = frozenset(token.content for token in added.values() if token.special)
        prefix = self._added_prefix()
        self.bos_id: int | None = self._named_id("bos_token")
        if self.bos_id is None and "bos_token" not in special.named and prefix:
            self.bos_id = prefix[0]
        self.adds_bos: bool = self.bos_id in prefix
        eos_id = self._named_id("eos_token")
        self.eos_ids: frozenset[int] = frozenset() if eos_id is None else frozenset({eos_id})

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """The folder's tokenizer.

        Raises ModelFilesMissing without a tokenizer.json, TokenizerError if it
        or a file beside it can't be used.
        """
        path = folder / "tokenizer.json"
        content = read_bytes(path, guard.TOKENIZER_MAX_BYTES)
        if content is None:
            raise _no_tokenizer(folder)
        special = read_special_tokens(folder)
        backend = guard.load(path, content)
        with guard.guarded(special.path, "its special tokens can't be added"):
            _add_tokens(backend, special)
        return cls(path, backend, special)

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id; asks for every id, so that it is not told before somebody wants it."""
        return 1 + guard.largest_id(self._backend)

    @property
    def bos_token(self) -> str | None:
        """The token of `bos_id`."""
        return None if self.bos_id is None else self.token(self.bos_id)

    def encode(self, text: str, *, add_special_tokens: bool = True, parse_special: bool = True) -> list[int]:
        """The token ids of a text.

        `add_special_tokens` adds what tokenizer.json puts around a text (often
        BOS). With `parse_special=False`, special tokens spelt out in the text
        stay ordinary text. Raises InvalidParameter for text that is not
        Unicode, TokenizerError if the tokenizer fails or takes too long.
        """
        _check_unicode(text)
        backend = self._backend if parse_special else self._literal_backend
        return guard.encode(self.path, backend, text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of token ids; ids that no token has (a padded embedding's) are left out."""
        for token_id in token_ids:
            _check_id(token_id)
        return guard.decode(self.path, self._backend, token_ids, skip_special_tokens=skip_special_tokens)

    def token(self, token_id: int) -> str:
        """The token as the vocabulary spells it, "" for an id without one."""
        _check_id(token_id)
        return self._backend.id_to_token(token_id) or ""

    def id_of(self, token: str) -> int | None:
        """The id of a token spelt as the vocabulary does."""
        _check_unicode(token)
        return self._backend.token_to_id(token)

    def is_special(self, token_id: int) -> bool:
        """Whether decoding leaves this token out by default."""
        return self.token(token_id) in self._special_contents

    def visible_token(self, token_id: int) -> str | None:
        """The token if decoding shows it; None for a special token and for an id without one."""
        _check_id(token_id)
        token = self._backend.id_to_token(token_id)
        return None if token in self._special_contents else token

    def to_json(self) -> str:
        """tokenizer.json as it is used here: with the tokens of the other files, nothing cut or padded."""
        with guard.guarded(self.path, "can't be written as JSON"):
            return str(self._backend.to_str())

    def new_decoder_chain(self) -> Chain:
        """This tokenizer's decoder in incremental form, at the start of a text."""
        return make_chain(self._backend.decoder, self._decoder_state)

    def guarded_decoding(self) -> AbstractContextManager[None]:
        """Inside it, a decoder that fails or panics raises TokenizerError."""
        return guard.guarded(self.path, "can't decode these tokens")

    def _named_id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        return None if token is None else self._backend.token_to_id(token)

    def _added_prefix(self) -> list[int]:
        """What encode puts before a text."""
        plain = self.encode("a", add_special_tokens=False)
        whole = self.encode("a")
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return whole[:start]
        return []

    @property
    def _literal_backend(self) -> Backend:
        with self._literal_lock:
            return self._made_literal_backend

    @cached_property
    def _made_literal_backend(self) -> Backend:
        """A second backend on the same model that takes special tokens for text.

        The package has this as a switch, but one that all threads share.
        """
        import tokenizers

        source = self._backend
        twin = tokenizers.Tokenizer(source.model)
        for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
            if getattr(source, part) is not None:
                setattr(twin, part, getattr(source, part))
        added = source.get_added_tokens_decoder()
        twin.add_tokens([added[token_id] for token_id in sorted(added)])
        if twin.get_added_tokens_decoder() != added:  # ids with gaps can't be given again in order
            twin = tokenizers.Tokenizer.from_str(source.to_str())
        twin.encode_special_tokens = True
        return twin


def _add_tokens(backend: Backend, special: SpecialTokens) -> None:
    """Tell the backend of the tokens that only the other files list, as transformers does.

    A named token that the vocabulary lacks is not added: its id would lie
    beyond the model's embedding.
    """
    from tokenizers import AddedToken

    known = backend.get_added_tokens_decoder()
    known_reprs = {repr(token) for token in known.values()}
    for token_id, stated in special.added.items():
        token = AddedToken(stated.content, **stated.flags)
        if stated.content and repr(token) not in known_reprs:
            backend.add_tokens([token])
            _check_added_id(backend, special.path, stated.content, token_id)
    contents = {token.content for token in backend.get_added_tokens_decoder().values()}
    for content in (*special.named.values(), *special.extra):
        if content and content not in contents and backend.token_to_id(content) is not None:
            backend.add_tokens([AddedToken(content, special=True)])


def _check_added_id(backend: Backend, path: Path, content: str, stated_id: int) -> None:
    token_id = backend.token_to_id(content)
    if token_id != stated_id:
        raise TokenizerError(
            path,
            f"gives the token {content!r:.60} the id {stated_id}, but in tokenizer.json it is {token_id}",
        )


def _unknown_tokens(backend: Backend, special: SpecialTokens) -> list[str]:
    return [
        f"{special.path.name}: {name} is {content!r:.60}, which is not in the vocabulary"
        for name, content in special.named.items()
        if backend.token_to_id(content) is None
    ]


def _no_tokenizer(folder: Path) -> ModelFilesMissing:
    found = [name for name in _OTHER_FORMATS if (folder / name).is_file()]
    if not found:
        hint = "download the model again, with all of its files"
        return ModelFilesMissing(folder, "there is no tokenizer.json", hint=hint)
    return ModelFilesMissing(
        folder,
        f"there is no tokenizer.json, only {found[0]}",
        hint="convert it once: transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder) "
        "writes a tokenizer.json",
    )


def _check_unicode(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = text[max(error.start - 10, 0) : error.end]
        raise InvalidParameter("text", shown, "Unicode without lone surrogates") from error


def _check_id(token_id: int) -> None:
    if not 0 <= token_id < _ID_LIMIT:
        raise InvalidParameter("token id", token_id, f"in [0, {_ID_LIMIT})")
