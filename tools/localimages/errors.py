"""The error that a person can act on: a message, printed after ``ERROR:``."""


class ImageError(Exception):
    """An image could not be built; the message says what to do."""
