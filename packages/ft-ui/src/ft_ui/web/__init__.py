"""Serving a page: on which address, to whom, and with what around it."""
