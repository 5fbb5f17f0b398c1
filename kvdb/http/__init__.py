"""The HTTP door: an API, metrics and a page, on the standard library's server."""
