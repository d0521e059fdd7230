"""A service with everything switched on, under real clients and a Redis that comes and goes.

``make soak`` runs it for ten minutes, ``make soak SECONDS=60`` for one. In the end nothing may be
left: no slot, no request, no task, thread or descriptor more than there was, memory as it was, and
nobody may have had what was made for somebody else.
"""
