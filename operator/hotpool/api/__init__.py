"""Models, names and normal forms of the four kinds. The CRDs are generated from these models.

Must not decide or do I/O.
"""
