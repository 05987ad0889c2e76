"""Vaults, their credentials, and the encryption of stored secrets."""
