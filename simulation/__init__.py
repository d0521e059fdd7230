"""A whole exchange on virtual time, from one seed: ``make simulate``.

One seed is one world: a policy, a few callers with their requests, an application, servers and a
Redis, each of which may misbehave. Nothing in it waits, reads a clock or draws a number but by the
world's own, so the same seed takes the same course on every machine, and what it finds can be
looked at again: ``make simulate SEED=4711``.
"""
