"""Routes and connections: the library over HTTP, as ASGI."""
