"""The error for the user, printed after ``ERROR:``."""


class ImageError(Exception):
    """An image could not be built; the message says what to do."""
