"""Agents and environments, their versions, and the models that agents are registered with."""
