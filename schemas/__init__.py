"""Data: one JSON Schema a kind, what they share in common.json, and the policy's. schema.py reads them."""
