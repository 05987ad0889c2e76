"""Durable state: one SQLite file in WAL mode, one writer, grouped commits."""
