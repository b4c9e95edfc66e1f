"""Measurements that users can repeat: every claim is a ratio against a named peer in the same process.

Each benchmark checks its answers against the peer or an oracle first, and only then takes times.
"""
