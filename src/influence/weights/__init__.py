"""Weights of a model on this disk: safetensors files, checked and mapped, never copied."""
