"""The steps of a round, one file per step, and the loop that runs them in order.

A step is a function ``<name>_step(project, round_number)`` that writes files and returns what the ledger records.
``pool.py``, ``teaching.py`` and ``annotator.py`` hold what several steps need; ``tune.py`` is a command, not a step.
"""
