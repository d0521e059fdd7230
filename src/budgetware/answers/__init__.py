"""What is sent instead of the full response: kept, prepared or refused answers.

Nothing here knows ASGI or WSGI; the doors bring facts of requests and take ``Answer`` values.
"""
