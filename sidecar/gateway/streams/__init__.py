"""Streamed model answers: their frames, what they say, whether they are complete, and repairs."""
