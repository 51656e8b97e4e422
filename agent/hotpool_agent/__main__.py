"""Entry point of `hotpool-agent` and `python -m hotpool_agent`; everything else is in `cli` and `agent`."""

from hotpool_agent.cli import app


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
