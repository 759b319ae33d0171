"""The program that renders chat templates, in a process of its own.

A chat template is code from the Hub. Jinja's sandbox keeps it from Python's
internals, but bounds neither time nor memory, and Python can't interrupt
`'a' * 10**10`. A process can be killed; this one also can't open a file, write
one, or grow beyond its limit, should a template ever leave the sandbox. Its time
is that of the processor, so that a machine with other work refuses nothing.

Run by template_process.py as `python -I -S template_worker.py PATH...`, where
the paths lead to jinja2. It imports nothing else of influence. One JSON object
a line:

    -> {"template", "variables", "max_characters", "limit_s"}
    <- {"ready": true}                         once, at the start
    <- {"text"}  or  {"failure", "message"}    for each request

The text may have `max_characters` more than the request line. `failure` is
"refused" (the template called raise_exception), "broken" (any other error in
it), "memory" or "size". A request that takes more than `limit_s` of processor
time gets no reply: SIGPROF ends the process.

The environment is the one of transformers/utils/chat_template_utils.py.
"""

from __future__ import annotations

import gc
import json
import resource
import signal
import sys
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

_MEMORY_BYTES = 384 << 20  # address space; the interpreter with jinja2 takes about 40 MiB of it
_MESSAGE_CHARACTERS = 2000


class _TooLong(Exception):
    """The output has more characters than the request allows."""


def main() -> None:
    """Answer requests until stdin ends."""
    sys.path.extend(sys.argv[1:])
    gc.disable()  # imports make no garbage
    _import_ahead()
    gc.enable()
    _limit_resources()
    _say({"ready": True})
    for line in sys.stdin.buffer:
        reply = _answer(line)
        _say(reply)
        if reply.get("failure") == "memory":
            break  # what is left of the address space is in pieces


def _answer(line: bytes) -> dict[str, Any]:
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        request = json.loads(line)
        max_characters = request["max_characters"] + len(line)
        signal.setitimer(signal.ITIMER_PROF, request["limit_s"])
        return {"text": _render(request["template"], request["variables"], max_characters)}
    except MemoryError:
        return {"failure": "memory", "message": ""}
    except _TooLong:
        return {"failure": "size", "message": ""}
    except TemplateSyntaxError as error:
        return _failure("broken", f"line {error.lineno}: {error}")
    except TemplateError as error:
        return _failure("refused" if type(error) is TemplateError else "broken", str(error))
    except Exception as error:
        return _failure("broken", f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _failure(kind: str, message: str) -> dict[str, Any]:
    return {"failure": kind, "message": message[:_MESSAGE_CHARACTERS]}


def _render(source: str, variables: dict[str, Any], max_characters: int) -> str:
    pieces = []
    n_characters = 0
    for piece in _compile(source).generate(variables):
        pieces.append(piece)
        n_characters += len(piece)
        if n_characters > max_characters:
            raise _TooLong
    return "".join(pieces)


@lru_cache(maxsize=8)
def _compile(source: str) -> Template:
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class SafeNamespace(Namespace):
        """`namespace` for templates: without attributes that look like Python's internals."""

        def __init__(*args: Any, **kwargs: Any) -> None:  # so that namespace(self=1) works, as in Jinja
            for name in dict(*args[1:], **kwargs):
                _refuse_private(name)
            Namespace.__init__(*args, **kwargs)

        def __setitem__(self, name: str, value: Any) -> None:
            _refuse_private(name)
            super().__setitem__(name, value)

    def _refuse_private(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace can't hold {name!r}: the name is private")

    class GenerationTag(Extension):
        """`{% generation %}...{% endgeneration %}` marks the assistant's part; here it is only its body."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> Any:
            return caller()

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": _Dict(),
        "namespace": SafeNamespace,
    }
    return environment.from_string(source)


class _Dict:
    """`dict` for templates: without the class, whose attributes lead into Python."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is, where Jinja's own filter escapes it for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _import_ahead() -> None:
    """Import what Jinja imports late: when requests come, no file can be opened any more."""
    import pprint  # noqa: F401
    import textwrap  # noqa: F401

    import jinja2.constants
    import jinja2.debug
    import jinja2.ext
    import jinja2.sandbox  # noqa: F401

    _render("{{ 'a\\n' | upper }} {{ strftime_now('%B %Z') }}", {}, 100)  # a codec, the time zone


def _limit_resources() -> None:
    for name, value in (
        ("RLIMIT_AS", _MEMORY_BYTES),
        ("RLIMIT_NOFILE", 3),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 0),
    ):
        if hasattr(resource, name):
            _limit(getattr(resource, name), value)


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with suppress(ValueError, OSError):  # macOS knows some limits only by name; the clocks still hold
        resource.setrlimit(which, (soft, hard))


def _say(reply: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
