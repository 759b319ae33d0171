"""Chat templates that attack: time, memory, the sandbox, the process; and files that are none."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from influence.errors import TokenizerError
from influence.text.chat_template import ChatTemplate

USER = {"role": "user", "content": "hi"}
FORK_BOMB_OF_LISTS = "{% set ns = namespace(a=['x']) %}" + "{% set ns.a = [ns.a, ns.a] %}" * 40
DOUBLED = "{% set x = 'x' * 1000 %}" + "{% set x = x ~ x %}" * 40
CAPTURED = "{% set x %}xxxxxxxxxx{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 40

TOO_MUCH = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "nested loops in a macro": "{% macro m() %}{% for a in range(99999) %}{% endfor %}{% endmacro %}"
    "{% for a in range(99999) %}{{ m() }}{% endfor %}",
    "a long string": "{{ 'a' * 10**10 }}",
    "a long list": "{{ [0] * 10**10 }}",
    "a wide number": "{{ '%1000000000d' % 1 }}",
    "a wide filter": "{{ '%1000000000d' | format(1) }}",
    "a wide field": "{{ '{:1000000000}'.format(1) }}",
    "a padded string": "{{ 'a'.ljust(10**10) }}",
    "a centred string": "{{ 'a' | center(10**10) }}",
    "a wide indent": "{{ messages | tojson(indent=10**9) }}",
    "a replacement": "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "a join": "{{ (['a' * 10**6] * 10**5) | join }}",
    "a huge power": "{{ 10 ** (10 ** 10) }}",
    "a big power": "{{ (10 ** 9999999) % 7 }}{{ (7 ** 99999999) % 11 }}",
    "a large range": "{{ range(10**9) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a recursive loop": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "doubled text": DOUBLED + "{{ x }}",
    "doubled captures": CAPTURED + "{{ x }}",
    "doubled lists": FORK_BOMB_OF_LISTS + "{{ ns.a }}",
    "doubled lists as JSON": FORK_BOMB_OF_LISTS + "{{ ns.a | tojson }}",
    "much output": "{% set x = 'a' * 10**6 %}{% for i in range(9999) %}{{ x }}{% endfor %}",
    "output by the letter": "{% for i in range(99999) %}{% for j in range(99) %}a{% endfor %}{% endfor %}",
    "much text to parse": "{{ 1 }}" * 400_000,
    "deep brackets": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "lorem ipsum": "{{ lipsum(n=10**7) }}",
}

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ '' | attr('__class__') | attr('__mro__') }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__['os'].system('id') }}",
    "{{ namespace.__init__.__globals__.os.system('id') }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ lipsum.__globals__.__builtins__.__import__('os').system('id') }}",
    "{{ raise_exception.__globals__['sys'].modules }}",
    "{{ strftime_now.__code__.co_consts }}",
    "{{ dict.__class__.__init__.__globals__['sys'] }}",
    "{{ range.__self__.__dict__.x }}",
    "{{ '{0.__class__.__mro__[1]}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ ('{0.__class__}' | string).format(1) }}",
    "{{ (messages | map(attribute='__class__.__mro__') | first).x }}",
    "{{ messages.append({}) }}",
    "{{ messages[0].update({'a': 1}) }}",
    "{{ messages[0].clear() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('id') }}",
    "{% from 'os' import system %}",
    "{% extends '/etc/passwd' %}",
]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Any]:
    """A template from text, its process started and closed with the test."""
    loaded: list[ChatTemplate] = []

    def load(text: str, **limits: Any) -> ChatTemplate:
        (tmp_path / "chat_template.jinja").write_text(text)
        template = ChatTemplate.load(tmp_path, {"bos_token": "<s>"}, **limits)
        assert template is not None
        loaded.append(template)
        return template

    yield load
    for template in loaded:
        template.close()


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_template_that_wants_too_much_ends_soon(name: str, load: Any) -> None:
    template = load(TOO_MUCH[name], limit_s=0.3)
    before_s = processor_s_of_children()
    with pytest.raises(TokenizerError, match=r"chat_template\.jinja: the chat template") as caught:
        template.render([USER])
    template.close()
    assert processor_s_of_children() - before_s < 2.0  # its start is in it
    assert "--raw" in caught.value.hint


def processor_s_of_children() -> float:
    """Of those that have ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def test_a_machine_with_other_work_is_no_reason_to_refuse(load: Any) -> None:
    """What is limited is the template's own time, not how long it had to wait for a core."""
    template = load("{{ messages[0].content }}", limit_s=0.5)
    assert template.render([USER]) == "hi"
    worker = template._process._running().pid
    os.kill(worker, signal.SIGSTOP)
    rendered: list[str] = []
    thread = threading.Thread(target=lambda: rendered.append(template.render([USER])))
    thread.start()
    thread.join(0.6)
    os.kill(worker, signal.SIGCONT)
    thread.join()
    assert rendered == ["hi"]


def test_a_process_that_does_nothing_is_given_up_at_last(load: Any) -> None:
    template = load("{{ messages[0].content }}", limit_s=0.1)
    template.render([USER])
    os.kill(template._process._running().pid, signal.SIGSTOP)
    with pytest.raises(TokenizerError, match="takes more than"):
        template.render([USER])
    assert template.render([USER]) == "hi"


@pytest.fixture(scope="module")
def escapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatTemplate]:
    """All of ESCAPES by their index, in one process."""
    folder = tmp_path_factory.mktemp("escapes")
    (folder / "additional_chat_templates").mkdir()
    for index, text in enumerate(ESCAPES):
        (folder / "additional_chat_templates" / f"{index}.jinja").write_text(text)
    template = ChatTemplate.load(folder, {})
    assert template is not None
    yield template
    template.close()


@pytest.mark.parametrize("text", ESCAPES)
def test_a_template_does_not_leave_its_sandbox(text: str, escapes: ChatTemplate) -> None:
    try:
        rendered = escapes.render([USER], name=str(ESCAPES.index(text)))
    except TokenizerError:
        return
    assert rendered == ""  # Jinja's other way to refuse: an undefined value


def test_a_hostile_template_takes_no_memory_of_ours(load: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    others_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of earlier tests
    for name in ("a long string", "doubled text", "much output", "doubled lists"):
        with pytest.raises(TokenizerError):
            load(TOO_MUCH[name], limit_s=0.3).render([USER])
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 64
    children_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    assert children_mib < max(450, others_mib + 1)


def test_after_a_limit_the_next_rendering_works(load: Any) -> None:
    text = (
        "{% if messages[0].content == 'loop' %}"
        + TOO_MUCH["nested loops"]
        + "{% endif %}{{ messages[0].content }}"
    )
    template = load(text, limit_s=0.5)
    with pytest.raises(TokenizerError, match=r"takes more than 0\.5 s"):
        template.render([{"role": "user", "content": "loop"}])
    assert template.render([USER]) == "hi"


def test_a_limit_off_the_main_thread_is_an_error_there(load: Any) -> None:
    template = load(TOO_MUCH["nested loops"], limit_s=0.2)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            template.render([USER])
        except TokenizerError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_output_may_be_as_long_as_its_input_and_the_limit_more(load: Any) -> None:
    template = load("{{ messages[0].content }}{{ 'x' * 1000 }}", max_characters=2000)
    long = "y" * 3_000_000
    assert template.render([{"role": "user", "content": long}]) == long + "x" * 1000
    with pytest.raises(TokenizerError, match="writes too much text"):
        load("{{ 'x' * 9000 }}", max_characters=2000).render([USER])


def test_a_killed_process_is_an_error_and_then_replaced(load: Any) -> None:
    template = load("{{ messages[0].content }}")
    assert template.render([USER]) == "hi"
    process = template._process._process
    os.kill(process.pid, 9)
    process.wait()
    assert template.render([USER]) == "hi"


def test_no_process_outlives_its_template(load: Any, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("x")
    template = ChatTemplate.load(tmp_path, {})
    assert template is not None and template.render([USER]) == "x"
    process = template._process._process
    assert process is not None and process.poll() is None
    del template
    gc.collect()
    assert process.returncode is not None


def test_the_process_sees_neither_our_environment_nor_our_files(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    template = load("x")
    template.render([USER])
    pid = template._process._process.pid
    environment = Path(f"/proc/{pid}/environ")
    if not environment.exists():
        pytest.skip("needs /proc")
    assert b"secret" not in environment.read_bytes()
    assert sorted(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()) == [0, 1, 2]
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert [line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")] == ["3"]


@pytest.mark.parametrize("stated", [1, [], [1], [{"name": "default"}], {"default": 1}, [{"template": "x"}]])
def test_a_template_that_is_no_text_is_named(tmp_path: Path, stated: Any) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": stated}))
    if stated == []:
        assert ChatTemplate.load(tmp_path, {}) is None
        return
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json: chat_template must be"):
        ChatTemplate.load(tmp_path, {})


def test_files_that_are_no_templates_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chat_template.jinja"
    os.mkfifo(path)
    with pytest.raises(TokenizerError, match="not a regular file"):
        ChatTemplate.load(tmp_path, {})
    path.unlink()
    path.write_bytes(b"\xff\xfea\x00")
    with pytest.raises(TokenizerError, match="not UTF-8"):
        ChatTemplate.load(tmp_path, {})
    path.write_bytes(b"\xef\xbb\xbfa\r\nb")
    template = ChatTemplate.load(tmp_path, {})
    assert template is not None and template.source("default") == "a\nb"


def test_a_folder_of_a_thousand_templates_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "additional_chat_templates"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number}.jinja").write_text("x")
    with pytest.raises(TokenizerError, match="100 templates"):
        ChatTemplate.load(tmp_path, {})
