"""Kernels run in Triton's interpreter unless TRITON_INTERPRET=0 says that there is a GPU.

The variable counts when Triton is imported, which no test module outside this folder does.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
