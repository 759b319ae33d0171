"""What a command is going to wait for, begun before the command's own modules are imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from influence.text.template_process import TemplateProcess

_WITHOUT_TEMPLATE = frozenset({"--raw", "--help"})


def renderer_for(arguments: Sequence[str]) -> TemplateProcess | None:
    """The process that renders chat templates, started, if this command line looks as if it will render one.

    It takes as long to be ready as all modules that a generation needs. A
    guess is enough: what nobody takes ends with us, and `generate` starts one
    where none was.
    """
    if arguments[:1] != ["generate"] or not _WITHOUT_TEMPLATE.isdisjoint(arguments):
        return None
    from influence.text.template_process import TemplateProcess

    renderer = TemplateProcess()
    renderer.start()
    return renderer
