"""A local Kubernetes control plane of plain processes, behind kind's command line.

Its job: build etcd and Kubernetes from Go modules, run them on 127.0.0.1 as the current user, remove them without a
trace. Called by: ``tools/kind``, which pytest-kind, make and people run; tests that stop one process use
``localkube.cluster``.
It must not: need root or containers, listen beyond loopback, or import hotpool.
"""
