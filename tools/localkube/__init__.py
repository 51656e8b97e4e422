"""Run a local Kubernetes of plain processes, behind kind's command line.

Builds etcd and Kubernetes from Go modules; runs a control plane on 127.0.0.1 as the current user and, for root on
request, a worker node in namespaces of its own; removes them without a trace. Must not need root or containers for a
control plane, listen where other machines reach it, or import hotpool.
"""
