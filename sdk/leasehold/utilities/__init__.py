"""Helpers for flow authors, where Prefect has them."""
