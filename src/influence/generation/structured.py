"""Structured output: a JSON schema, a regular expression or a grammar that a completion keeps to.

    spec = ConstraintSpec.json_schema(schema)                     checked; no model needed
    vocabulary = ConstraintVocabulary(tokenizer, vocab_size, eos_ids)     once for each model
    source = compile_constraint(spec, vocabulary)                 in a thread that may wait
    generator.submit(ids, params, constraint=source.new())        for each sequence

The grammars are llguidance's, which walks the tokenizer's trie with a parser
and a lexer made of derivatives: no backtracking, and fuel for each step, so
that a hostile pattern ends in an error. On 32,000 tokens a mask takes 2 to 30 µs,
less than handing it to another thread, and is made where it is needed. A
sequence whose masks turn out to cost more has them made in a thread while
the engine runs.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Self

import llguidance
import numpy as np
import numpy.typing as npt

from influence.dataclass import dataclass
from influence.errors import InvalidParameter
from influence.generation.schema_check import checked_pattern, checked_schema, unfit
from influence.text.backend import guarded
from influence.text.tokenizer import Tokenizer

Kind = Literal["json_schema", "json_object", "regex", "grammar", "tools"]
Mask = npt.NDArray[np.bool_]

MAX_GRAMMAR_BYTES = 64 * 1024

# JSON is written on one line, as OpenAI's is: with blanks anywhere, a model that has lost
# its way writes them until its tokens are used up, and sound ones spend tokens on indentation.
_JSON_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "coerce_one_of": False,
    "lenient": False,
}

# The library's defaults let a pattern such as (a{1000}){1000} hold up a step for a
# second; with these the worst found takes 50 ms, nearly all of it when it is compiled.
_INITIAL_FUEL = 200_000
_STEP_FUEL = 100_000
_MAX_LEXER_STATES = 50_000  # of 1 to 2 kB

# Beyond this a mask is made in another thread; handing it over costs some 50 µs.
_COSTLY_S = 300e-6


@dataclass(frozen=True)
class ConstraintSpec:
    """What a completion's whole text must be; equal specs compile to the same.

    Made by the functions below, which raise InvalidParameter for what can't be enforced.
    """

    kind: Kind
    text: str  # the schema as JSON, the pattern, or the grammar

    @classmethod
    def json_schema(cls, schema: object, *, name: str = "json_schema") -> Self:
        """JSON that is valid for a schema; `name` is what errors call it."""
        return cls("json_schema", checked_schema(schema, name))

    @classmethod
    def json_object(cls) -> Self:
        """Any JSON object."""
        return cls("json_object", '{"type":"object"}')

    @classmethod
    def regex(cls, pattern: object, *, name: str = "regex") -> Self:
        """Text that a regular expression matches from its first to its last character."""
        return cls("regex", checked_pattern(pattern, name))

    @classmethod
    def grammar(cls, lark: object, *, name: str = "grammar") -> Self:
        """Text of a context-free grammar in llguidance's variant of Lark's syntax."""
        if not isinstance(lark, str) or not lark.strip():
            raise unfit(name, lark, "a grammar with a rule `start`")
        if len(lark.encode()) > MAX_GRAMMAR_BYTES:
            raise unfit(name, lark, f"at most {MAX_GRAMMAR_BYTES} bytes")
        return cls("grammar", lark)


class ConstraintVocabulary:
    """A model's tokens as grammars see them: their bytes, and which of them end a text.

    Made once for each model; usable from several threads.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: frozenset[int]) -> None:
        """`vocab_size` is the model's, which may be larger than the tokenizer's: the rest is banned.

        Raises TokenizerError for a tokenizer whose tokens are no fixed bytes.
        """
        self.vocab_size = vocab_size
        self.eos_ids = frozenset(i for i in eos_ids if i < min(vocab_size, tokenizer.vocab_size))
        # The library can't do without an end; a stand-in is taken out of every mask again.
        self._stand_in = None if self.eos_ids else _stand_in(tokenizer)
        ends = sorted(self.eos_ids) if self._stand_in is None else [self._stand_in]
        with guarded(tokenizer.path, "can't be used for structured output"):
            self.tokens = llguidance.LLTokenizer(
                tokenizer.to_json(), n_vocab=max(vocab_size, tokenizer.vocab_size), eos_token=ends
            )
        self.n_words = -(-self.tokens.vocab_size // 32)  # of 32 bits, in the library's masks
        self.ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="influence-masks")

    def mask(self, bits: npt.NDArray[np.uint32]) -> Mask:
        """(vocab_size,) from the library's bits, one for each token."""
        allowed = np.unpackbits(bits.view(np.uint8), count=self.vocab_size, bitorder="little").view(np.bool_)
        if self._stand_in is not None:
            allowed[self._stand_in : self._stand_in + 1] = False
        return allowed


class CompiledConstraint:
    """A grammar over a vocabulary; any number of sequences follow it, each by a state of its own."""

    def __init__(self, spec: ConstraintSpec, vocabulary: ConstraintVocabulary) -> None:
        self.spec = spec
        self.vocabulary = vocabulary
        self._beginning = llguidance.LLMatcher(
            vocabulary.tokens, _grammar(spec), log_level=0, limits=_limits()
        )
        if self._beginning.is_error():
            raise self.refusal(self._beginning.get_error())
        self._try()

    def new(self) -> GrammarState:
        """The grammar's beginning, for one sequence."""
        return GrammarState(self, self._beginning.deep_copy())

    def refusal(self, problem: str) -> InvalidParameter:
        """The error for a grammar that can't be followed (further)."""
        return unfit(self.spec.kind, self.spec.text, _expectation(problem))

    def _try(self) -> None:
        """Make the first masks here: they cost the most, and all states share what they leave behind."""
        state = self.new()
        for _ in range(2):
            candidates = np.flatnonzero(state.allowed())
            if candidates.size:
                state.accept(int(candidates[0]))
            if state.is_complete:
                break


class GrammarState:
    """One sequence's place in a grammar: the generator's `Constraint`."""

    def __init__(self, source: CompiledConstraint, matcher: llguidance.LLMatcher) -> None:
        self._source = source
        self._vocabulary = source.vocabulary
        self._matcher = matcher
        self._bits = np.zeros(source.vocabulary.n_words, np.uint32)
        self._mask: Mask | None = None
        self._pending: Future[Mask] | None = None
        self._is_costly = False
        self._has_ended = False  # nothing may follow the tokens accepted

    def allowed(self) -> Mask:
        """(vocab_size,) which tokens may come next; an EOS is among them where the text may end.

        Raises InvalidParameter where the grammar leads nowhere, or became too complex to follow.
        """
        if self._pending is not None:
            self._mask, self._pending = self._pending.result(), None
        if self._mask is None:
            self._mask = self._made_mask()
        return self._mask

    def accept(self, token_id: int) -> None:
        """Go on by a token that was allowed; raises InvalidParameter as `allowed` does."""
        self._mask = None
        if token_id in self._vocabulary.eos_ids:
            self._has_ended = True
            return
        if not self._matcher.consume_token(token_id):
            raise self._dead_end()
        self._has_ended = self._matcher.is_stopped()
        if self._has_ended and not self._matcher.is_accepting():  # a limit stopped it, not the text's end
            raise self._dead_end()
        if self._is_costly and not self._has_ended:
            self._pending = self._vocabulary.ahead.submit(self._made_mask)

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow."""
        if self._has_ended or self._vocabulary.eos_ids:
            return self._has_ended
        return not self.allowed().any()  # a model without an EOS has no token for "it may end here"

    def _made_mask(self) -> Mask:
        started_s = time.perf_counter()
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise self._dead_end()
        mask = self._vocabulary.mask(self._bits)
        if not mask.any() and not self._matcher.is_accepting():
            raise self._dead_end()
        self._is_costly = time.perf_counter() - started_s > _COSTLY_S
        return mask

    def _dead_end(self) -> InvalidParameter:
        return self._source.refusal(self._matcher.get_error() or "no token can follow")


def compile_constraint(spec: ConstraintSpec, vocabulary: ConstraintVocabulary) -> CompiledConstraint:
    """A source of constraints; takes up to some tenths of a second for a large grammar.

    Raises InvalidParameter for a grammar with an error, or too complex.
    """
    return CompiledConstraint(spec, vocabulary)


def guided_schema(schema: str) -> str:
    """A checked schema with the options that all JSON is written by, as llguidance reads them."""
    options: dict[str, Any] = {"x-guidance": _JSON_OPTIONS, **json.loads(schema)}
    return json.dumps(options, ensure_ascii=False)


def _grammar(spec: ConstraintSpec) -> str:
    """The specification as llguidance takes it."""
    match spec.kind:
        case "json_schema" | "json_object":
            return llguidance.LLMatcher.grammar_from_json_schema(guided_schema(spec.text))
        case "regex":
            # "dw": \d and \w are ASCII, as in the patterns of JSON schemas.
            lark = f"start: /{llguidance.regex_to_lark(spec.text, 'dw')}/"
            return llguidance.LLMatcher.grammar_from_lark(lark)
        case "grammar" | "tools":
            return llguidance.LLMatcher.grammar_from_lark(spec.text)


def _limits() -> llguidance.LLParserLimits:
    return llguidance.LLParserLimits(
        initial_lexer_fuel=_INITIAL_FUEL,
        step_lexer_fuel=_STEP_FUEL,
        max_lexer_states=_MAX_LEXER_STATES,
        verbose_errors=False,  # they would repeat the text so far
    )


def _stand_in(tokenizer: Tokenizer) -> int:
    """A token that no grammar misses: BOS, or else the last one."""
    return tokenizer.vocab_size - 1 if tokenizer.bos_id is None else tokenizer.bos_id


def _expectation(problem: str) -> str:
    """What a grammar must be instead, from the library's words for what is wrong with it."""
    lines = [line.strip() for line in problem.splitlines() if line.strip() and "verbose" not in line]
    said = next((line for line in lines if line.startswith("error:")), lines[0] if lines else "")
    if "oneOf" in said:
        return "without a oneOf whose alternatives overlap: use anyOf"
    if "lookaround" in said:
        return "without \\b, and with ^ and $ only at its ends"
    if not said or said.startswith("NoExtension"):
        return "one that some text can satisfy"
    return f"one that can be followed ({said.removeprefix('error:').strip()[:200]})"
