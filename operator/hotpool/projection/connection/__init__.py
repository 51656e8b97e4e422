"""Connections to Redis: one server, Sentinel or cluster; asynchronous and synchronous."""
