"""The HTTP port: an API, metrics and a page, on the standard library's server."""
