"""One model on several GPUs of a machine: each has a part of every layer, and a process of its own.

    rank 0     the process of the engine that everybody knows (engine.py): sessions, blocks, choices
    others     processes that it starts (process.py, worker.py) and tells what it does (commands.py)

All ranks run the same passes over their parts (cuts.py) in the same order, and
meet in collectives (group.py). team.py holds them together: whichever rank
fails, all end, and rank 0 says why.
"""
