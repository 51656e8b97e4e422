"""Entry point of `hotpool-agent` and `python -m hotpool_agent`."""

from hotpool.common.bare_kubernetes import import_bare_kubernetes
from hotpool.common.home import provide_home
from hotpool.common.standard_output import tolerant_output
from hotpool_agent.cli.program import app


def main() -> None:
    """Run the command line."""
    # Must come before a command imports the agent, and with it kubernetes.
    import_bare_kubernetes()
    provide_home()
    with tolerant_output():
        app()


if __name__ == "__main__":
    main()
