"""Stands before the real package in a test that wants it missing."""

raise ImportError("decord is not installed")
