"""Kernels run in Triton's interpreter, but for the tests of a GPU (`make test-gpu`), or where TRITON_INTERPRET says otherwise.

The variable counts when Triton is imported, which no test module outside this folder does.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "0" if os.environ.get("INFLUENCE_TEST_GPU") else "1")
