"""Define the errors that a person can act on; the message is printed after ``ERROR:``.

Must not carry anything but a message.
"""


class KindError(Exception):
    """A failure with a message for the person at the terminal."""


class PortTakenError(KindError):
    """A program could not listen because another program took its port first."""
