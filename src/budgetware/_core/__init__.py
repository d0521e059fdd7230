"""The account itself: policy, budget, stages, record. Standard library only.

Nothing in this room awaits, does I/O, logs or knows a framework. Time enters as one injected
monotonic clock in seconds; the doors (``asgi``, ``wsgi``) and the sinks (``telemetry``) stand
above and touch the core through ``engine``.
"""
