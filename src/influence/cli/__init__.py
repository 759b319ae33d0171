"""The command line: one file a command, a thin face of the floors below.

A command's module imports click and its neighbours here at the top, and
everything else inside the function that needs it, so that `influence --help`
and a mistyped option answer at once.
"""
