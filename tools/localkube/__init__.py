"""A local Kubernetes of plain processes, behind kind's command line.

Its job: build etcd and Kubernetes from Go modules, run a control plane on 127.0.0.1 as the current user and, where root
asks for it, a worker node in namespaces of its own; remove them without a trace.
Called by: ``tools/kind``, which pytest-kind, make and people run; tests that stop a program use ``localkube.cluster``.
It must not: need root or containers for a control plane, listen where other machines reach it, or import hotpool.
"""
