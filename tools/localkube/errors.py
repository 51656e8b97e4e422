"""The errors that a person can act on.

Its job: one base class whose message is printed after ``ERROR:``. Raised by every module, caught by ``cli`` alone.
It must not: carry anything but a message.
"""


class KindError(Exception):
    """A failure with a message for the person at the terminal."""


class PortTakenError(KindError):
    """A program could not listen because somebody took its port first."""
