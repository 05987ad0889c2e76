"""Other programs' JSON, as pydantic models."""
