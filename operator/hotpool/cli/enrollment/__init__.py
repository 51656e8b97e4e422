"""Accounts and kubeconfigs for agents outside the cluster."""
