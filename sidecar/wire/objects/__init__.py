"""What the API answers: the shapes of its resources, lists, events and errors, as typed dictionaries.

Handlers build these as plain objects; the OpenAPI document is made from these types, and the tests hold every
answer against it. Source: the response types of the official Python SDK 2.14.0, plus the fields that LAP and
OpenAI clients read.
"""
