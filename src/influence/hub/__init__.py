"""The Hugging Face Hub, or a mirror of it: search, list, download, verify, and the shelf of what is here.

Knows HTTP and files; nothing of what the files mean. Nothing here is imported,
and no socket opened, by a command that runs a model.
"""

OWN_FOLDER = ".influence"  # in a model's folder: what a download knows of it (manifest.py)
