"""One file per paper. A module has `Settings` (what its configuration may say) and `Algorithm` (what an update does).

Adding a baseline: one file here and one in `conf/algorithm/`; nothing else names it.
"""
