"""The GPU engine: any ModelSpec on PyTorch, on CUDA, Metal, or torch's own CPU device for tests.

Nothing here is imported before a device asks for it: torch is an extra
(`pip install 'influence[torch]'`) and takes seconds to load.
"""
