"""The contract with agents, people and dispatchers: pydantic models and the names that go with them.

Read by the core, the agent and the CRD generator. Holds shapes and normal forms only: no decision, no I/O.
"""
