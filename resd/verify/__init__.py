"""Verification in processes of its own: a verifier that hangs, crashes or lies loses one answer, never the run.

A lost answer has no verdict but a reason (`Lost`): it is counted and not trained on, instead of turning into a silent
zero reward. Each worker stands under a guard (`guard.py`) that ends it, and all that it started, with the run; its
verdicts come back as plain data under the number of their question, and are checked on both sides (`verdict.py`).

This isolates failures, not attackers: tasks that run model-written code bring their own sandbox. Not covered: a
verifier that kills its guard and leaves processes, or signals every process of the machine; and on other systems than
Linux, processes that have left the session of their worker.
"""

from resd.verify.examine import examine
from resd.verify.pool import Answer, Verifier

__all__ = ["Answer", "Verifier", "examine"]
