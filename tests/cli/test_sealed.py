"""The seal itself: a proof that could not fail would prove nothing."""

from __future__ import annotations

import pytest

from support.cli import run_python

TRY_IT = """
import sys
from influence.cli import sealed
sealed.seal()
try:
    {attempt}
except PermissionError:
    print("refused", *sealed.attempts())
else:
    print("allowed", *sealed.attempts())
"""

ATTEMPTS = {
    "import socket; socket.socket()": "refused socket.__new__",
    "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)": "refused socket.__new__",
    "import socket; socket.getaddrinfo('localhost', 80)": "refused socket.getaddrinfo",
    "import http.client; http.client.HTTPConnection('127.0.0.1', 9).request('GET', '/')": "refused socket.getaddrinfo",
    "import subprocess; subprocess.run(['true'])": "refused subprocess.Popen",
    "import subprocess; subprocess.run([sys.executable, '-I', '-S', '/tmp/template_worker.py'])": "refused subprocess.Popen",
    "import os; os.system('true')": "refused os.system",
    "import os; os.fork()": "refused os.fork",
    "import socket; socket.socketpair()[0].close()": "allowed",
    "open('/dev/null').close()": "allowed",
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, str]:
    """All attempts in one interpreter; a hook can't be taken away, but what it noted can be forgotten."""
    cases = "\n".join(TRY_IT.format(attempt=attempt) + "\nsealed._attempts.clear()" for attempt in ATTEMPTS)
    done = run_python("import warnings; warnings.simplefilter('ignore')\n" + cases)
    assert done.returncode == 0, done.stderr
    return dict(zip(ATTEMPTS, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_the_seal_refuses_what_could_reach_out(verdicts: dict[str, str], attempt: str) -> None:
    assert verdicts[attempt].strip() == ATTEMPTS[attempt]
