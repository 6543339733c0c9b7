"""Answers as clients see them: for the OpenAPI document, and for the tests that hold real answers against them.

The formats write dicts and bytes of their own; these are what they must look like, by field and without any other.
"""
