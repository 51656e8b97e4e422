"""Build the program: `python -m alertcheck` prints its path."""

from alertcheck import program
from localkube.console import Console

if __name__ == "__main__":
    print(program(Console()))
