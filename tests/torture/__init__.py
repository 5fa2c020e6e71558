"""Runs on the real game that are stopped, starved and damaged, and must end as if nothing had been.

`make torture` is the long form, whose counts docs/reliability.md reports; tests run a short one.
"""
